"""Interval bound propagation."""

from __future__ import annotations

from xrobust.certification import interval_lower_bound
from xrobust.defenses.certified import Batch, CertifiedTraining, Robust, certified_share, worst_case_loss


class IBPTraining(CertifiedTraining):
    """R = CE°(m) with the lower bounds m of z_y − z_j by interval arithmetic (Gowal et al. 2018).

    CE°(m) = log(1 + Σ_{j≠y} exp(−m_j)); the differences are folded into the last layer. Published with κ from 1 to 0.5.
    Arguments as in `CertifiedTraining`.
    """

    def robust(self, batch: Batch) -> Robust:
        bounds = batch.bounds(batch.box)
        lower = interval_lower_bound(bounds, batch.forms)
        return Robust(worst_case_loss(lower), bounds, certified_share(lower))
