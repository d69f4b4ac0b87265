"""Whether two attributions order pairs of pixels alike."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.metrics.comparison import MapComparison
from xrobust.metrics.probe import Probe, magnitude


def kendall_tau(first: Tensor, second: Tensor) -> Tensor:
    """τ_b = (concordant − discordant pairs) / √(pairs untied in u · pairs untied in v): (N, d), (N, d) → (N,).

    In [−1, 1]; NaN if a row is constant or not finite (Kendall 1945). In O(d log² d) time and O(d) memory: sorted by
    (u, v), the discordant pairs are the inversions of v, which are counted while blocks of doubling size are merged
    (Knight 1966).
    """
    size = first.shape[1]
    by_second = second.argsort(dim=1)
    by_first = first.gather(1, by_second).argsort(dim=1, stable=True)
    order = by_second.gather(1, by_first)  # by first, and by second among equal ones
    first_sorted, second_sorted = first.gather(1, order), second.gather(1, order)

    new_first, new_second = _begins(first_sorted), _begins(second_sorted)
    tied_first, tied_second = _tied_pairs(new_first), _tied_pairs(_begins(second.gather(1, by_second)))
    tied_both = _tied_pairs(new_first | new_second)
    pairs = size * (size - 1) // 2
    balance = pairs - tied_first - tied_second + tied_both - 2 * inversions(second_sorted)
    value = balance / (pairs - tied_first).double().sqrt() / (pairs - tied_second).double().sqrt()
    return value.clamp(-1, 1).where((first + second).isfinite().all(1), float("nan"))


def inversions(values: Tensor) -> Tensor:
    """The number of pairs i < j with v_i > v_j: (N, d) → (N,) int64."""
    count, size = values.shape
    width = 1 << max(0, size - 1).bit_length()
    # The largest number of all at the end makes no inversion.
    padded = torch.cat([values, values.new_full((count, width - size), torch.inf)], 1)
    total = torch.zeros(count, dtype=torch.int64, device=values.device)
    half = 1
    while half < width:
        blocks = padded.unflatten(1, (-1, 2 * half))
        merged, order = blocks.sort(dim=2, stable=True)
        # In a merged block, the j-th entry of the right half has passed all of the left half but those above it.
        place = torch.arange(2 * half, device=values.device).expand_as(order)
        places_of_right = place.where(order >= half, 0).sum(2)
        total += (half * half + half * (half - 1) // 2 - places_of_right).sum(1)
        padded, half = merged.flatten(1), 2 * half
    return total


def _begins(ascending: Tensor) -> Tensor:
    """Where a run of equal values begins: (N, d) → (N, d) bool."""
    begins = torch.ones_like(ascending, dtype=torch.bool)
    begins[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    return begins


def _tied_pairs(begins: Tensor) -> Tensor:
    """The number of pairs within runs: (N, d) → (N,) int64."""
    place = torch.arange(begins.shape[1], device=begins.device).expand(begins.shape)
    return (place - place.where(begins, 0).cummax(1).values).sum(1)


class KendallTau(MapComparison):
    """Kendall's τ_b of the pixels' magnitudes Σ_c |a_c| (Chen et al. 2019).

    Args:
        versus: see `MapComparison`.
    """

    def per_sample(self, probe: Probe) -> Tensor:
        return kendall_tau(magnitude(probe.map).flatten(1), magnitude(self.other_map(probe)).flatten(1))
