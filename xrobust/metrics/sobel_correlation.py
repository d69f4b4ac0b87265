"""Whether an attribution follows the edges of the image."""

from __future__ import annotations

from torch import Tensor

from xrobust.attributions import sobel_magnitude
from xrobust.errors import one_of
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.faithfulness_correlation import pearson_correlation
from xrobust.metrics.probe import Probe, magnitude
from xrobust.metrics.spearman import spearman_correlation

CORRELATIONS = {"pearson": pearson_correlation, "spearman": spearman_correlation}


class SobelCorrelation(ExplanationMetric):
    """The correlation of the magnitudes Σ_c |a_c| with the edges of the image, Σ_c √(g_x² + g_y²).

    Args:
        correlation: "pearson" or "spearman" (of the ranks).
    """

    higher_is_better, group, cost = True, "alignment", "cheap"

    def __init__(self, correlation: str = "pearson"):
        super().__init__()
        if correlation not in CORRELATIONS:
            raise one_of("SobelCorrelation.correlation", correlation, list(CORRELATIONS))
        self.correlation = correlation

    def per_sample(self, probe: Probe) -> Tensor:
        edges = magnitude(sobel_magnitude(probe.x)).flatten(1)
        return CORRELATIONS[self.correlation](magnitude(probe.map).flatten(1), edges)
