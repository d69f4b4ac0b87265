"""How much an explanation changes, relative to the logits."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.neighbourhood import distance
from xrobust.metrics.probe import Probe
from xrobust.metrics.relative_stability import RelativeStability


class RelativeOutputStability(RelativeStability):
    """ROS: the relative change of the map over ‖f(x_k) − f(x)‖₂, the absolute one of the logits (Agarwal et al. 2022).

    Args:
        samples, floor, least_cause: see `RelativeStability`.
    """

    def cause(self, probe: Probe, points: Tensor, logits: Tensor) -> Tensor:
        return distance(logits, probe.logits)
