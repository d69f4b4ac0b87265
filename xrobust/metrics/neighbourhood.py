"""How much an explanation changes at the worst of some random neighbours of the image."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from xrobust.errors import at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe


class WorstNeighbour(ExplanationMetric):
    """max_k instability(x, x_k) over n points x_k, drawn uniformly from the threat model's ball.

    All such metrics see the same points. NaN for a zero map, which explains nothing, where the quantity is undefined
    at a neighbour, and where no neighbour is left. A maximum grows with n: compare values of equal n only.

    Args:
        samples: n ≥ 1.
    """

    higher_is_better, group, cost = False, "stability", "moderate"

    def __init__(self, samples: int = 10):
        super().__init__()
        at_least(type(self).__name__, 1, samples=samples)
        self.samples = samples

    @abstractmethod
    def instability(self, probe: Probe, points: Tensor) -> Tensor:
        """The value at one neighbour of each sample, (N,) float64; −∞ where the point is to be left out."""

    def per_sample(self, probe: Probe) -> Tensor:
        streams = probe.streams("neighbours")
        worst = torch.full((len(probe),), -torch.inf, dtype=torch.float64, device=probe.x.device)
        for _ in range(self.samples):
            points = probe.threat.random_start(probe.x, streams)
            worst = torch.maximum(worst, self.instability(probe, points))  # NaN stays NaN
        return worst.where(probe.map.flatten(1).any(1) & worst.isfinite(), float("nan"))


def distance(first: Tensor, second: Tensor) -> Tensor:
    """‖u − v‖₂ over all entries of each sample, in float64: (N, ...), (N, ...) → (N,)."""
    return (first.flatten(1).double() - second.flatten(1).double()).norm(dim=1)
