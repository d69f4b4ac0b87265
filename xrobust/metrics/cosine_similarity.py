"""Whether two attributions have the same direction."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.comparison import MapComparison
from xrobust.metrics.map_cosine import cosine
from xrobust.metrics.probe import Probe


class CosineSimilarity(MapComparison):
    """⟨a(x), a(x')⟩ / (‖a(x)‖₂·‖a(x')‖₂), signed, over all entries.

    In [−1, 1]; NaN if either map is zero.

    Args:
        versus: see `MapComparison`.
    """

    def per_sample(self, probe: Probe) -> Tensor:
        return cosine(probe.map.flatten(1), self.other_map(probe).flatten(1))
