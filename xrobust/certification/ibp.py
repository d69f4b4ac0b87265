"""Interval bound propagation as a certifier."""

from __future__ import annotations

from dataclasses import dataclass

from xrobust.certification.base import Certifier
from xrobust.certification.certificate import Certificate
from xrobust.certification.problem import Problem


@dataclass(frozen=True, kw_only=True)
class IBP(Certifier):
    """z_y − z_j > 0 by interval arithmetic, the differences folded into the last layer (Gowal et al. 2018)."""

    def run(self, problem: Problem) -> Certificate:
        return Certificate.of_margins(problem.x, problem.bound_by_intervals())
