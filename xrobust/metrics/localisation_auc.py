"""How well the relevance tells the pixels that matter from the others."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.localisation import LocalisationMetric
from xrobust.metrics.spearman import average_ranks


def roc_auc(values: Tensor, mask: Tensor) -> Tensor:
    """P(v_i > v_j) + ½·P(v_i = v_j) for i in the mask and j outside: (N, d), (N, d) bool → (N,).

    The area under the ROC curve, from the sum of the ranks inside (Mann & Whitney 1947); NaN if either side is empty.
    """
    inside = mask.sum(1).double()
    rank_sum = average_ranks(values).where(mask, 0).sum(1)
    return (rank_sum - inside * (inside + 1) / 2) / (inside * (mask.shape[1] - inside))


class LocalisationAUC(LocalisationMetric):
    """The area under the ROC curve of r as a detector of M; the whole ranking counts, not a top."""

    def score(self, values: Tensor, mask: Tensor) -> Tensor:
        return roc_auc(values.flatten(1), mask.flatten(1))
