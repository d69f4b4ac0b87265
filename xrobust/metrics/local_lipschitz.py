"""How fast an attribution changes around the image."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.neighbourhood import WorstNeighbour, distance
from xrobust.metrics.probe import Probe


class LocalLipschitz(WorstNeighbour):
    """max_k ‖a(x_k) − a(x)‖₂ / ‖x_k − x‖₂, x_k uniform in the threat model's ball (Alvarez-Melis & Jaakkola 2018).

    In [0, ∞), in units of the map per unit of the pixel range; a lower bound of the local Lipschitz constant, in the
    Euclidean norm whatever the threat model's. NaN where x_k = x, too.

    Args:
        samples: see `WorstNeighbour`.
    """

    def instability(self, probe: Probe, points: Tensor) -> Tensor:
        return distance(probe.attribute(points), probe.map) / distance(points, probe.x)
