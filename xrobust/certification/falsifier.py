"""An attack among certifiers: it closes samples by counter-examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from xrobust.attacks import Attack
from xrobust.attacks.base import require_misleading
from xrobust.certification.base import Certifier
from xrobust.certification.certificate import Certificate
from xrobust.certification.problem import Problem
from xrobust.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Falsifier(Certifier):
    """Falsified where an attack finds a counter-example; unknown elsewhere.

    Args:
        attack: against the same threat model.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    attack: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        require_attack_on(self, self.attack)

    def run(self, problem: Problem) -> Certificate:
        certificate = Certificate.blank(problem.x)
        falsify_by_attack(certificate, problem, self.attack)
        return certificate


def require_attack_on(certifier: Certifier, attack: Attack) -> None:
    """Refuse an attack whose failure would say nothing, or that is for another threat model."""
    place = f"{type(certifier).__name__}.attack"
    require_misleading(attack, place)
    if attack.threat != certifier.threat:
        raise UserError(f"{place} is for {attack.threat}, but the certifier is for {certifier.threat}")


def falsify_by_attack(certificate: Certificate, problem: Problem, attack: Attack) -> None:
    """Note the counter-examples that an attack finds."""
    images = attack(problem.model, problem.x, problem.y, generator=problem.generator)
    falsify_by_images(certificate, problem, torch.arange(len(problem), device=problem.x.device), images)


def falsify_by_images(
    certificate: Certificate, problem: Problem, rows: torch.Tensor, images: torch.Tensor
) -> torch.Tensor:
    """Note which of the images, one for each of the samples `rows`, are counter-examples, and return it: (n,) bool."""
    x, y = problem.x[rows], problem.y[rows]
    images = problem.threat.project(images.to(x.dtype), x)
    wrong = (problem.predictions(images) != y) & problem.threat.contains(images, x)
    certificate.falsify(rows[wrong], images[wrong])
    return wrong
