"""Training on the dual bound of Wong and Kolter."""

from __future__ import annotations

from xrobust.certification import Walk, crown_bounds, lower_bound
from xrobust.certification.operation import PARALLEL
from xrobust.defenses.certified import Batch, CertifiedTraining, Robust, certified_share, worst_case_loss


class WongKolter(CertifiedTraining):
    """R = CE°(m) with the lower bounds m of z_y − z_j by the dual network (Wong & Kolter 2018), which is Fast-Lin.

    Unstable ReLUs lie between two parallel lines, and the bounds of every preactivation come from a backward pass of
    their own. Time and memory grow with the number of unstable units: for small networks. Arguments as in
    `CertifiedTraining`.
    """

    def robust(self, batch: Batch) -> Robust:
        bounds = crown_bounds(batch.bounds(batch.box), slope=PARALLEL)
        lower = lower_bound(bounds, batch.forms, walk=Walk(PARALLEL))
        return Robust(worst_case_loss(lower), bounds, certified_share(lower))
