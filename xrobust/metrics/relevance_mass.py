"""How much of the relevance lies on the pixels that matter."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.localisation import LocalisationMetric


def relevance_mass(values: Tensor, mask: Tensor) -> Tensor:
    """Σ_{i∈M} v_i / Σ_i v_i of nonnegative values: (N, H, W), (N, H, W) bool → (N,), NaN if all are zero."""
    values = values.double()
    return values.where(mask, 0).sum((1, 2)) / values.sum((1, 2))


class RelevanceMass(LocalisationMetric):
    """Σ_{i∈M} r_i / Σ_i r_i (Arras et al. 2022)."""

    def score(self, values: Tensor, mask: Tensor) -> Tensor:
        return relevance_mass(values, mask)
