"""CROWN-IBP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xrobust.certification import Bounds, interval_lower_bound, lower_bound
from xrobust.defenses.adversarial import check_share
from xrobust.defenses.certified import Batch, CertifiedTraining, Robust, certified_share, worst_case_loss


class CROWNIBPTraining(CertifiedTraining):
    """R = CE°(β · m_CROWN-IBP + (1 − β) · m_IBP) (Zhang et al. 2020), β linear in ε from 1 to its last value.

    CROWN-IBP is one backward pass of linear bounds over interval bounds, K − 1 linear forms at a time. With loss
    fusion (Xu et al. 2020) it is one form: with u_j ≥ z_j − z_y ≥ l_j by interval arithmetic, exp is below its chord
    between l_j and u_j, so that Σ_j exp(z_j − z_y) ≤ Σ_j [exp(u_j) + a_j (z_j − z_y − u_j)], and the linear form in it
    is bounded: by S. Then R = log(1 + β · S + (1 − β) · Σ_j exp(u_j)). Where β is 0, both are IBP, and cost as much.

    Args:
        beta: β at the full radius; published 0 or, for networks that stay with CROWN-IBP, 1.
        loss_fusion: one linear form instead of K − 1.
        certified: as in `CertifiedTraining`.
    """

    def __init__(self, *, beta: float = 0.0, loss_fusion: bool = True, **certified: Any):
        super().__init__(**certified)
        self.beta = check_share("beta", beta)
        self.loss_fusion = loss_fusion

    def robust(self, batch: Batch) -> Robust:
        beta = self.between(1.0, self.beta)
        bounds = batch.bounds(batch.box)
        lower, negated = interval_lower_bound(bounds, torch.cat([batch.forms, -batch.forms], 1)).chunk(2, 1)
        terms = {"beta": lower.new_tensor(beta)}
        if beta and self.loss_fusion:
            losses = _fused_loss(bounds, batch.forms, lower, -negated, beta)
        else:
            if beta:
                lower = beta * lower_bound(bounds, batch.forms) + (1 - beta) * lower
            losses = worst_case_loss(lower)
        return Robust(losses, bounds, terms | certified_share(lower))


def _fused_loss(bounds: Bounds, forms: Tensor, lower: Tensor, upper: Tensor, beta: float) -> Tensor:
    """log(1 + β · S + (1 − β) · Σ_j exp(u_j)); in units of exp(M), M = max(0, max_j u_j), so that nothing overflows.

    Args:
        bounds: of interval arithmetic.
        forms: z_y − z_j, (N, K − 1, K).
        lower, upper: their bounds by interval arithmetic, (N, K − 1); −lower = u.
        beta: β > 0.
    """
    largest = (-lower).detach().amax(1, keepdim=True).clamp(min=0)
    top = (-lower - largest).exp()
    width = (upper - lower).clamp(min=1e-6)
    slope = top * -torch.expm1(-width) / width  # of the chord
    line = lower_bound(bounds, (slope.unsqueeze(2) * forms).sum(1, keepdim=True))[:, 0]  # ≤ Σ_j a_j (z_y − z_j)
    chords = (top + slope * lower).sum(1) - line
    total = beta * chords + (1 - beta) * top.sum(1)
    total = total.clamp(min=torch.finfo(total.dtype).tiny)  # the bound of a positive sum, but for rounding
    return largest[:, 0] + torch.logaddexp(-largest[:, 0], total.log())
