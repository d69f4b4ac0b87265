"""How much an explanation changes, relative to the image."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.probe import Probe
from xrobust.metrics.relative_stability import RelativeStability, relative_change


class RelativeInputStability(RelativeStability):
    """RIS: the relative change of the map over that of the image, both entry by entry (Agarwal et al. 2022).

    NaN for a black image, too, of which nothing is a share.

    Args:
        samples, floor, least_cause: see `RelativeStability`.
    """

    def cause(self, probe: Probe, points: Tensor, logits: Tensor) -> Tensor:
        change = relative_change(probe.x.flatten(1), points.flatten(1), self.floor)
        return change.where(change.isfinite(), float("nan"))
