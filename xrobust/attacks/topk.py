"""The attack that drives the most relevant pixels out of the top."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.attacks.attribution import AttributionAttack, Goal, relevance_shares
from xrobust.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TopKAttack(AttributionAttack):
    """min_z Σ_{i ∈ T(x)} m_i(z) / Σ_i m_i(z), m = Σ_c |a_c|, T(x) the k pixels of largest m(x) (Ghorbani et al. 2019).

    What counts is |T(x) ∩ T(z)|, and of equal ones the share that is descended.

    Args:
        share: k as a share of the image's pixels, in (0, 1]. It does most harm to an intersection at the same k.
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UserError(f"{type(self).__name__}.share must be above 0 and at most 1, got {self.share}")

    def goal(self, maps: Tensor, logits: Tensor) -> Goal:
        shares = relevance_shares(maps)
        count = max(1, round(self.share * shares.shape[1]))
        top = _top(shares, count)

        def loss(maps: Tensor, logits: Tensor) -> Tensor:
            return (relevance_shares(maps) * top).sum(1)

        def score(maps: Tensor, logits: Tensor) -> Tensor:
            common = (top & _top(relevance_shares(maps), count)).sum(1)
            return common + loss(maps, logits)  # a share is below 1, so that the number decides

        return Goal(loss, score)


def _top(values: Tensor, count: int) -> Tensor:
    """The `count` largest entries that are positive: (N, d) → (N, d) bool."""
    order = values.topk(count, dim=1).indices
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, True) & (values > 0)
