"""Model parameter randomisation test: whether an explanation needs what the model has learned."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from xrobust.errors import at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.map_similarity import similarity_named
from xrobust.metrics.model_randomisation import randomised_networks
from xrobust.metrics.probe import Probe
from xrobust.randomness import normal_like


class MPRT(ExplanationMetric):
    """The mean similarity of a(x) and its counterparts in networks with ever more random layers (Adebayo et al. 2018).

    The layers lose their weights from the logits down (or from the image up), in `steps` equal parts; the trained
    network itself is no part of the mean. All images see the same random networks. In [−1, 1]; NaN where one of the
    maps has no similarity to others (a constant one for Spearman's).

    Args:
        top_down: the order of the cascade.
        steps: networks that are compared, ≥ 1; at most one for each layer.
        similarity: "spearman" or "ssim", of the pixels' Σ_c |a_c|.
    """

    higher_is_better, group = False, "randomisation"
    cost: ClassVar[Literal["cheap", "moderate", "expensive"]] = "moderate"

    def __init__(self, top_down: bool = True, steps: int = 4, similarity: str = "spearman"):
        super().__init__()
        at_least(type(self).__name__, 1, steps=steps)
        self.top_down, self.steps = top_down, steps
        self.similarity = similarity_named(similarity, f"{type(self).__name__}.similarity")

    def explanation(self, probe: Probe) -> Tensor:
        """The map that is compared: (N, C, H, W)."""
        return probe.map

    def per_sample(self, probe: Probe) -> Tensor:
        own = self.explanation(probe)
        networks = randomised_networks(probe.model, probe.seed, top_down=self.top_down, steps=self.steps)
        others = (self.explanation(replace(probe, model=network, shared={})) for network in networks)
        return torch.stack([self.similarity(own, other) for other in others]).mean(0)


class SmoothMPRT(MPRT):
    """`MPRT` of maps that are averaged over noisy copies of the image, a(x + σ·ξ) (sMPRT, Hedström et al. 2024).

    The noise is the same in all networks, so that what differs is the network and not a draw.

    Args:
        top_down, steps, similarity: see `MPRT`.
        samples: noisy copies of each image, ≥ 1.
        sigma: σ ≥ 0, the standard deviation of the noise, in units of the pixel range.
    """

    cost = "expensive"

    def __init__(
        self,
        top_down: bool = False,
        steps: int = 4,
        similarity: str = "spearman",
        samples: int = 10,
        sigma: float = 0.1,
    ):
        super().__init__(top_down, steps, similarity)
        at_least("SmoothMPRT", 1, samples=samples)
        at_least("SmoothMPRT", 0.0, sigma=sigma)
        self.samples, self.sigma = samples, sigma

    def explanation(self, probe: Probe) -> Tensor:
        streams, total = probe.streams("smooth_mprt"), torch.zeros_like(probe.x)
        for _ in range(self.samples):
            total += probe.attribute(probe.x + self.sigma * normal_like(probe.x, streams).to(probe.x.dtype))
        return total / self.samples
