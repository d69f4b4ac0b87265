"""Implementation invariance: whether an explanation depends on how a function is written down."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe
from xrobust.metrics.wrapped_model import WrappedModel


class Maximum(nn.Module):
    """max(a, b) = a + ReLU(b − a)."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + self.relu(b - a)


class Rewritten(WrappedModel):
    """The same function as a given model, written so that rules for single layers give another explanation.

    1. The logits are reflected and reflected back, z = M(Mz) with M = I − 2vvᵀ/‖v‖², v = (1, …, K), by two 1 × 1
       convolutions: the weights mix signs, which rules that treat positive and negative contributions apart see (the
       z⁺ and γ rules of LRP).
    2. max(max(a, b), c) − max(a, max(b, c)) = 0 is added to each logit, where b is the logit, a and c the two that
       follow it in a circle, and max(a, b) = a + ReLU(b − a): rules that treat a ReLU in a way of their own, whatever
       comes after it, do not see that the two halves cancel (guided backpropagation, DeepLIFT).

    The gradient is the model's almost everywhere, up to rounding.

    Args:
        model: images → logits (N, K).
        classes: K.
        like: a tensor with the device and the precision of the model.

    Shapes: those of the model.
    """

    def __init__(self, model: nn.Module, classes: int, like: Tensor):
        super().__init__(model)
        direction = torch.arange(1, classes + 1, dtype=torch.float64)
        reflection = torch.eye(classes, dtype=torch.float64) - 2 * torch.outer(direction, direction) / direction.dot(
            direction
        )
        self.reflect, self.reflect_back = (
            # Without initial weights, which would be drawn from the global generator.
            skip_init(nn.Conv2d, classes, classes, 1, bias=False, device=like.device, dtype=like.dtype)
            for _ in range(2)
        )
        for convolution in (self.reflect, self.reflect_back):
            convolution.weight.data.copy_(reflection[:, :, None, None])
        self.left_inner, self.left_outer, self.right_inner, self.right_outer = (Maximum() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        b = self.reflect_back(self.reflect(self.inner(x)[:, :, None, None])).flatten(1)
        a, c = (torch.cat([b[:, shift:], b[:, :shift]], 1) for shift in (1, 2))
        left = self.left_outer(c, self.left_inner(a, b))
        right = self.right_outer(a, self.right_inner(c, b))
        return b + left - right


class ImplementationInvariance(ExplanationMetric):
    """‖a_g − a_f‖₂ / ‖a_f‖₂, where g is f written in another way (Sundararajan et al. 2017).

    In [0, ∞): 0 up to rounding for functions of the gradient or of the outputs; above 0 for guided backpropagation,
    DeepLIFT and the z⁺ and γ rules of LRP. NaN for a zero map. See `Rewritten` for g.
    """

    higher_is_better, group, cost = False, "axioms", "moderate"

    def per_sample(self, probe: Probe) -> Tensor:
        like = next((p for p in probe.model.parameters() if p.is_floating_point()), probe.x)
        classes = probe.logits.shape[1]
        with torch.inference_mode(False):  # autograd cannot record weights that were made in inference mode
            rewritten = Rewritten(probe.model, classes, like)
        found = replace(probe, model=rewritten, shared={}).map.flatten(1).double()
        expected = probe.map.flatten(1).double()
        return ((found - expected).norm(dim=1) / expected.norm(dim=1)).where(expected.any(1), float("nan"))
