"""Certifiers in turn, from cheap to dear, each on the samples that the earlier ones left open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from xrobust.certification.base import Certifier, require_members
from xrobust.certification.certificate import Certificate
from xrobust.certification.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Cascade(Certifier):
    """The verdict of the first member that has one; members share intermediate bounds.

    Precision, batch size and chunk are those of the cascade.

    Args:
        certifiers: by name, in the order of their turns, all for the threat model of the cascade.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    certifiers: Mapping[str, Certifier]

    def __post_init__(self) -> None:
        super().__post_init__()
        require_members("Cascade.certifiers", self.certifiers, self.threat)

    @property
    def members(self) -> list[str]:
        return list(self.certifiers)

    def run(self, problem: Problem) -> Certificate:
        certificate = Certificate.blank(problem.x)
        rows = torch.arange(len(problem), device=problem.x.device)  # of the samples that are open
        for turn, member in enumerate(self.certifiers.values()):
            verdict = member.run(problem)
            verdict.margin.copy_(torch.maximum(verdict.margin, problem.margin))
            verdict.member.fill_(turn)
            certificate.put(rows, verdict)
            left = verdict.open.nonzero().flatten()
            if not len(left):
                break
            problem, rows = problem.rows(left), rows[left]
        return certificate

    def __str__(self) -> str:
        return f"{type(self).__name__} ({self.threat}, {self.precision}, {' → '.join(self.certifiers)})"
