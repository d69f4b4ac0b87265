"""Whether two attributions agree on the most important pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.errors import UserError
from xrobust.metrics.comparison import MapComparison
from xrobust.metrics.probe import Probe, magnitude


def top_pixels(values: Tensor, count: int) -> Tensor:
    """The `count` largest entries that are positive; of equal ones the first: (N, d) → (N, d) bool."""
    order = values.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, True) & (values > 0)


def topk_intersection(first: Tensor, second: Tensor, count: int) -> Tensor:
    """|T ∩ T'| / max(|T|, |T'|) of the top entries of nonnegative values: (N, d), (N, d) → (N,).

    In [0, 1]; the denominator is k unless both maps have fewer positive entries than that, since an entry
    without relevance is in no top. NaN if a map is zero or not finite.
    """
    top, other = top_pixels(first, count), top_pixels(second, count)
    share = (top & other).sum(1).double() / torch.maximum(top.sum(1), other.sum(1))
    usable = [values.isfinite().all(1) & values.any(1) for values in (first, second)]
    return share.where(usable[0] & usable[1], float("nan"))


class TopKIntersection(MapComparison):
    """The share of the top pixels by Σ_c |a_c| that stay on top (Ghorbani et al. 2019, Chen et al. 2019).

    Args:
        share: k as a share of the image's pixels, in (0, 1]; the top 100 of a 28 × 28 image are 0.128.
        versus: see `MapComparison`.
    """

    def __init__(self, share: float = 0.1, versus: str = "adversarial"):
        super().__init__(versus)
        if not 0 < share <= 1:
            raise UserError(f"{type(self).__name__}.share must be above 0 and at most 1, got {share}")
        self.share = share

    def per_sample(self, probe: Probe) -> Tensor:
        first, second = magnitude(probe.map).flatten(1), magnitude(self.other_map(probe)).flatten(1)
        return topk_intersection(first, second, max(1, round(self.share * first.shape[1])))
