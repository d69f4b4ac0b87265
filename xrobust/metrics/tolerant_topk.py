"""Whether two attributions agree on the most important places, give or take a few pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.errors import at_least
from xrobust.metrics.probe import Probe, magnitude
from xrobust.metrics.topk_intersection import TopKIntersection, top_pixels


def tolerant_topk_intersection(first: Tensor, second: Tensor, count: int, radius: int) -> Tensor:
    """min(|T ∩ W(T')| / |T|, |T' ∩ W(T)| / |T'|) of nonnegative maps: (N, H, W), (N, H, W) → (N,).

    T and T' are the `count` largest positive entries, W(T) all pixels within `radius` rows and columns of one of T.
    The smaller of the two shares counts, so that a map cannot score by clumping. In [0, 1]; with radius 0 the plain
    intersection |T ∩ T'| / max(|T|, |T'|). NaN if a map is zero or not finite.
    """
    top, other = (top_pixels(values.flatten(1), count).view_as(values) for values in (first, second))
    share = torch.minimum(_found(top, other, radius), _found(other, top, radius))
    usable = [values.isfinite().all(1) & values.any(1) for values in (first.flatten(1), second.flatten(1))]
    return share.where(usable[0] & usable[1], float("nan"))


def _found(top: Tensor, other: Tensor, radius: int) -> Tensor:
    """The share of one top that lies within the windows around the other."""
    near = F.max_pool2d(other[:, None].double(), 2 * radius + 1, stride=1, padding=radius) > 0
    return (top & near[:, 0]).sum((1, 2)).double() / top.sum((1, 2))


class TolerantTopK(TopKIntersection):
    """The share of the top pixels by Σ_c |a_c| that stay near a top pixel (LENS of Kamath et al. 2024).

    Of their recall (the top of x found around that of x') and precision (the reverse), the smaller.

    Args:
        share, versus: see `TopKIntersection`.
        radius: w ≥ 0 in pixels; windows are (2w + 1) × (2w + 1).
    """

    def __init__(self, share: float = 0.1, radius: int = 1, versus: str = "adversarial"):
        super().__init__(share, versus)
        at_least(type(self).__name__, 0, radius=radius)
        self.radius = radius

    def per_sample(self, probe: Probe) -> Tensor:
        first, second = magnitude(probe.map), magnitude(self.other_map(probe))
        count = max(1, round(self.share * first.shape[1] * first.shape[2]))
        return tolerant_topk_intersection(first, second, count, self.radius)
