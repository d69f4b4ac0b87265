"""Which two maps a similarity metric compares: that of the image and that of a point nearby."""

from __future__ import annotations

from torch import Tensor

from xrobust.errors import one_of
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe

NEEDS = {"neighbour": frozenset(), "adversarial": frozenset({"attack"}), "attacked": frozenset({"map_attack"})}
UNDER_ATTACK = 5


class MapComparison(ExplanationMetric):
    """The base of metrics that compare a(x) with a(x'), both for the label of x.

    Args:
        versus: x' is the "adversarial" example or a random "neighbour" at equal ε, the control for it: what
            noise of the same size does to a map is not the attack's doing (Kamath et al. 2024). Or the "attacked"
            image, which the probe's attribution attack moved to change the map and not the prediction.
    """

    higher_is_better, group, cost = True, "stability", "moderate"

    def __init__(self, versus: str = "adversarial"):
        super().__init__()
        if versus not in NEEDS:
            raise one_of(f"{type(self).__name__}.versus", versus, list(NEEDS))
        self.versus = versus
        self.needs = NEEDS[versus]

    @property
    def point(self) -> int:
        return UNDER_ATTACK if self.needs else super().point

    def other_map(self, probe: Probe) -> Tensor:
        """a(x'): (N, C, H, W)."""
        return getattr(probe, f"{self.versus}_map")
