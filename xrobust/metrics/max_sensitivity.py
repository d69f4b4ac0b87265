"""How far an attribution moves at most when the image hardly does."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.neighbourhood import WorstNeighbour, distance
from xrobust.metrics.probe import Probe


class MaxSensitivity(WorstNeighbour):
    """max_k ‖a(x_k) − a(x)‖₂ / ‖a(x)‖₂, x_k uniform in the threat model's ball (Yeh et al. 2019).

    In [0, ∞).

    Args:
        samples: see `WorstNeighbour`.
    """

    def instability(self, probe: Probe, points: Tensor) -> Tensor:
        return distance(probe.attribute(points), probe.map) / probe.map.flatten(1).double().norm(dim=1)
