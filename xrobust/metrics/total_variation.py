"""How ragged an attribution is."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude


def total_variation(values: Tensor) -> Tensor:
    """Σ |v_{i+1,j} − v_{i,j}| + |v_{i,j+1} − v_{i,j}| over Σ |v_{i,j}|: (N, H, W) → (N,).

    The anisotropic total variation, free of scale; in [0, 4]: 0 for a constant map, near 4 for a chessboard
    of lone pixels; NaN for a zero map.
    """
    values = values.double()
    vertical, horizontal = values.diff(dim=1).abs().sum((1, 2)), values.diff(dim=2).abs().sum((1, 2))
    return (vertical + horizontal) / values.abs().sum((1, 2))


class TotalVariation(ExplanationMetric):
    """TV(m)/‖m‖₁ of the pixels' magnitudes m = Σ_c |a_c| (Rudin et al. 1992 for TV)."""

    higher_is_better, group, cost = False, "smoothness", "cheap"

    def per_sample(self, probe: Probe) -> Tensor:
        return total_variation(magnitude(probe.map))
