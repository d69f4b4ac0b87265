"""CROWN as a certifier."""

from __future__ import annotations

from dataclasses import dataclass

from xrobust.certification.certificate import Certificate
from xrobust.certification.crown_ibp import LinearCertifier
from xrobust.certification.problem import Problem


@dataclass(frozen=True, kw_only=True)
class CROWN(LinearCertifier):
    """Backward passes for all preactivations and for the logits (Zhang et al. 2018), or CROWN-IBP if that is better.

    With slope="parallel" these are the bounds of Fast-Lin (Weng et al. 2018; Wong & Kolter 2018).
    """

    def run(self, problem: Problem) -> Certificate:
        problem.bound_by_intervals()
        problem.bound_by_lines(problem.interval(), self.slope)
        return Certificate.of_margins(problem.x, problem.bound_by_lines(problem.crown(self.slope), self.slope))
