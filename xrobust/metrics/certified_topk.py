"""How many of the most relevant pixels stay so, provably."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.certification import Box
from xrobust.errors import UserError
from xrobust.metrics.certified_gradient import CertifiedGradient
from xrobust.metrics.probe import Probe


def relevance_bounds(box: Box) -> tuple[Tensor, Tensor]:
    """The least and the greatest Σ_c |g_c| for g in a box: (N, C, H, W) → (N, d) each."""
    least = torch.maximum(box.lower, -box.upper).clamp(min=0)
    greatest = torch.maximum(box.upper, -box.lower)
    return least.sum(1).flatten(1), greatest.sum(1).flatten(1)


def certainly_on_top(least: Tensor, greatest: Tensor, count: int) -> Tensor:
    """Entries of (N, d) that are positive and among the `count` largest for all values between the bounds: bool.

    An entry is if fewer than `count` others may reach it, #{j ≠ i: greatest_j ≥ least_i} < count: in a tie it wins
    whatever the order.
    """
    ordered = greatest.sort(dim=1).values
    reaching = ordered.shape[1] - torch.searchsorted(ordered, least)  # itself among them
    return (reaching <= count) & (least > 0) & greatest.isfinite().all(1, keepdim=True)


class CertifiedTopK(CertifiedGradient):
    """The share of the top pixels by Σ_c |∂_c f_y| that are in the top k for every image in the ball.

    The count of `certainly_on_top` divided by k, or by the number of pixels that can have any relevance if there are
    fewer. In [0, 1], and never above `TopKIntersection` of the gradient for the same share, whatever the attack in the
    ball (Wicker et al. 2023 for the bounds).

    Args:
        share: k as a share of the image's pixels, in (0, 1].
        preactivations: see `CertifiedGradient`.
    """

    higher_is_better = True

    def __init__(self, share: float = 0.1, preactivations: str = "ibp"):
        super().__init__(preactivations)
        if not 0 < share <= 1:
            raise UserError(f"CertifiedTopK.share must be above 0 and at most 1, got {share}")
        self.share = share

    def per_sample(self, probe: Probe) -> Tensor:
        least, greatest = relevance_bounds(self.box(probe))
        count = max(1, round(self.share * least.shape[1]))
        certain = certainly_on_top(least, greatest, count).sum(1).double()
        value = certain / (greatest > 0).sum(1).clamp(max=count)
        return value.where(probe.gradient.flatten(1).any(1), float("nan"))
