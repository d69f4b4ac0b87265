"""How many of the top pixels matter."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.localisation import LocalisationMetric


def relevance_rank(values: Tensor, mask: Tensor) -> Tensor:
    """|T ∩ M| / |M|, T the |M| largest of the values that are positive: (N, d), (N, d) bool → (N,).

    Where values tie for the last places of T, the tied ones in M count by their share of the ties.
    """
    size = mask.sum(1)
    last = values.sort(1, descending=True).values.gather(1, (size - 1).clamp(min=0)[:, None])
    above, tied = values > last, (values == last) & (values > 0)
    places = size - above.sum(1)
    hits = (above & mask).sum(1) + places * (tied & mask).sum(1).double() / tied.sum(1).clamp(min=1)
    return hits / size


class RelevanceRank(LocalisationMetric):
    """The share of the |M| most relevant pixels that lie in M (Arras et al. 2022)."""

    def score(self, values: Tensor, mask: Tensor) -> Tensor:
        return relevance_rank(values.flatten(1), mask.flatten(1))
