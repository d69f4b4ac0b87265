"""CROWN-IBP as a certifier."""

from __future__ import annotations

from dataclasses import dataclass

from xrobust.certification.base import Certifier
from xrobust.certification.certificate import Certificate
from xrobust.certification.operation import ADAPTIVE, SLOPES
from xrobust.certification.problem import Problem
from xrobust.errors import one_of


@dataclass(frozen=True, kw_only=True)
class LinearCertifier(Certifier):
    """A certifier by linear bounds.

    Args:
        slope: the lower line of unstable ReLUs: "adaptive" (CROWN), or "parallel" to the upper one (Fast-Lin).
    """

    slope: str = ADAPTIVE

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.slope not in SLOPES:
            raise one_of(f"{type(self).__name__}.slope", self.slope, SLOPES)


@dataclass(frozen=True, kw_only=True)
class CROWNIBP(LinearCertifier):
    """One backward pass over the preactivations of interval arithmetic (Zhang et al. 2020), or IBP if that is better.

    Arguments as in `LinearCertifier`.
    """

    def run(self, problem: Problem) -> Certificate:
        problem.bound_by_intervals()
        return Certificate.of_margins(problem.x, problem.bound_by_lines(problem.interval(), self.slope))
