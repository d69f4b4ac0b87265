"""Efficient parameter randomisation test: whether an explanation is simpler than that of a random network."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from xrobust.errors import at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.model_randomisation import randomised_network
from xrobust.metrics.probe import Probe, magnitude


def histogram_entropy(values: Tensor, bins: int) -> Tensor:
    """−Σ_b p_b ln p_b of each row's histogram between its smallest and its largest value, in nats: (N, d) → (N,).

    Each value is shared out between the two nearest bin centres, so that no rounding tips it over an edge. In
    [0, ln bins]; 0 for a constant row; NaN if a value is not finite.
    """
    values = values.double()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    place = ((values - low) / (high - low).where(high > low, 1)) * (bins - 1)
    finite = values.isfinite().all(1)
    below = place.where(finite[:, None], 0).floor()
    upper_share = place - below
    counts = values.new_zeros(len(values), bins)
    counts.scatter_add_(1, below.long(), 1 - upper_share)
    counts.scatter_add_(1, (below.long() + 1).clamp(max=bins - 1), upper_share)
    return torch.special.entr(counts / values.shape[1]).sum(1).where(finite, float("nan"))


class EfficientMPRT(ExplanationMetric):
    """(ξ(ã) − ξ(a)) / ξ(a), ã the map of the network with all layers random (eMPRT, Hedström et al. 2024).

    ξ is the entropy of the histogram of the pixels' Σ_c |a_c|. In [−1, ∞), above 0 if the trained network's map is
    the simpler one. NaN if a map is zero or a constant (of ξ = 0).

    Args:
        bins: of the histogram, ≥ 2.
    """

    higher_is_better, group, cost = True, "randomisation", "moderate"

    def __init__(self, bins: int = 100):
        super().__init__()
        at_least("EfficientMPRT", 2, bins=bins)
        self.bins = bins

    def per_sample(self, probe: Probe) -> Tensor:
        random = replace(probe, model=randomised_network(probe.model, probe.seed), shared={})
        own, other = (histogram_entropy(magnitude(each.map).flatten(1), self.bins) for each in (probe, random))
        return ((other - own) / own).where((own > 0) & (other > 0), float("nan"))
