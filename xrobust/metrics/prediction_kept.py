"""Whether the prediction survives where the explanation is compared."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.comparison import MapComparison
from xrobust.metrics.probe import Probe


class PredictionKept(MapComparison):
    """1 where argmax f(x') = argmax f(x), else 0: the share of the comparisons that compare maps of one decision.

    Args:
        versus: see `MapComparison`. Only the "attacked" image depends on the attribution.
    """

    def __init__(self, versus: str = "adversarial"):
        super().__init__(versus)
        self.uses_attribution = versus == "attacked"  # type: ignore[misc]

    def per_sample(self, probe: Probe) -> Tensor:
        points: Tensor = getattr(probe, self.versus)
        return (probe.logits_at(points).argmax(1) == probe.prediction).double()
