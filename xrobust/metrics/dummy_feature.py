"""Dummy features: whether pixels that the model ignores are given relevance."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude
from xrobust.metrics.wrapped_model import WrappedModel
from xrobust.randomness import uniform_like


class Cropped(WrappedModel):
    """x → f(x without its frame): a model that ignores the outermost pixels.

    Args:
        model: f.
        frame: the width of the frame in pixels.
    """

    def __init__(self, model: nn.Module, frame: int):
        super().__init__(model)
        self.frame = frame

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[..., self.frame : -self.frame, self.frame : -self.frame])


class DummyFeature(ExplanationMetric):
    """Σ_{i∈D} |a_i| / Σ_i |a_i|, D a frame of noise around the image that the model never sees.

    The axiom is called dummy (Friedman 2004) or sensitivity (b) (Sundararajan et al. 2017). In [0, 1], and exactly 0
    for a method that keeps it; the area of the frame for a constant map. NaN for a zero map.

    Args:
        frame: the width of the frame in pixels, ≥ 1.
    """

    higher_is_better, group, cost = False, "axioms", "moderate"

    def __init__(self, frame: int = 2):
        super().__init__()
        at_least("DummyFeature", 1, frame=frame)
        self.frame = frame

    def per_sample(self, probe: Probe) -> Tensor:
        sides = [self.frame] * 4
        dummy = F.pad(probe.x.new_zeros(probe.x.shape[-2:]), sides, value=1).bool()
        inside = F.pad(probe.x, sides)
        noise = uniform_like(inside, probe.streams("dummy_feature")).to(inside.dtype)
        model = Cropped(probe.model, self.frame)
        streams = probe.streams("attribution")
        relevance = magnitude(probe.method(model, noise.where(dummy, inside), probe.y, generator=streams)).double()
        return relevance[:, dummy].sum(1) / relevance.sum((1, 2))
