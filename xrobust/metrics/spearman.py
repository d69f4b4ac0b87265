"""Whether two attributions rank the pixels alike."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.metrics.alignment import centred
from xrobust.metrics.comparison import MapComparison
from xrobust.metrics.probe import Probe, magnitude


def average_ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing the mean of theirs: (N, d) → (N, d) float64."""
    size = values.shape[1]
    ascending, order = values.sort(1)
    begins = torch.ones_like(order, dtype=torch.bool)  # a run of equal values
    begins[:, 1:] = ascending.diff(dim=1) != 0
    rank = torch.arange(1, size + 1, device=values.device).expand_as(order)
    first = rank.where(begins, 0).cummax(1).values
    last = rank.where(begins.roll(-1, 1), size).flip(1).cummin(1).values.flip(1)
    return torch.empty_like(ascending, dtype=torch.float64).scatter_(1, order, (first + last).double() / 2)


def spearman_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of the average ranks: (N, d), (N, d) → (N,).

    In [−1, 1]; NaN if a row is constant or not finite (Spearman 1904).
    """
    ranks, others = centred(average_ranks(first)), centred(average_ranks(second))
    value = (ranks * others).sum(1) / (ranks.norm(dim=1) * others.norm(dim=1))
    return value.clamp(-1, 1).where((first + second).isfinite().all(1), float("nan"))


class SpearmanCorrelation(MapComparison):
    """Spearman's rank correlation of the pixels' magnitudes Σ_c |a_c| (Ghorbani et al. 2019).

    Args:
        versus: see `MapComparison`.
    """

    def per_sample(self, probe: Probe) -> Tensor:
        return spearman_correlation(magnitude(probe.map).flatten(1), magnitude(self.other_map(probe)).flatten(1))
