"""Whether two attributions look alike."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.comparison import MapComparison
from xrobust.metrics.probe import Probe, magnitude
from xrobust.metrics.structural_similarity import structural_similarity


class SSIM(MapComparison):
    """The structural similarity of the maps of magnitudes Σ_c |a_c|, each scaled to a maximum of 1.

    See `structural_similarity` (Wang et al. 2004; for maps Adebayo et al. 2018).

    Args:
        versus: see `MapComparison`.
    """

    def per_sample(self, probe: Probe) -> Tensor:
        return structural_similarity(magnitude(probe.map), magnitude(self.other_map(probe)))
