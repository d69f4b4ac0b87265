"""The attack's optimisation does not get where it ought to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from xrobust.attacks import APGD
from xrobust.attacks.losses import margin
from xrobust.attacks.standing import fresh_logits
from xrobust.evaluation.masking.base import Check
from xrobust.evaluation.masking.subject import Subject


@dataclass(frozen=True, kw_only=True)
class UnboundedAttackFails(Check):
    """Share that withstands the white-box attack when any image is allowed (Athalye et al. 2018, Pintor et al. 2022).

    At a radius that reaches every image, the attack can turn the sample into one of another class.
    """

    advice: ClassVar[str] = (
        "An attack that may change everything must always succeed, so the attack is broken or its gradients are "
        "useless: look at the model's gradients and at the step size before you believe any accuracy under attack."
    )
    reference: ClassVar[str] = (
        "Athalye et al. 2018; Carlini et al. 2019; Pintor et al. 2022 (unconstrained attack failure)"
    )

    def measure(self, subject: Subject) -> tuple[float, str]:
        low, high = (torch.full_like(subject.x[:1], end) for end in subject.threat.clip)
        everything = math.ceil(subject.threat.distance(high, low).item())
        attack = subject.white_box.with_eps(everything)
        share = (~subject.falls_to(attack)).double().mean().item()
        return share, f"{share:.1%} of {len(subject.x)} samples withstand {attack}, which may make any image of them"


@dataclass(frozen=True, kw_only=True)
class MoreStepsWin(Check):
    """Share of samples that withstood the evaluation, but not a longer attack (Carlini et al. 2019).

    Args:
        steps: of APGD, ≥ 1.
        restarts: of APGD, ≥ 1.
        loss: of APGD; "margin" does not saturate.
    """

    steps: int = 100
    restarts: int = 2
    loss: str = "margin"

    advice: ClassVar[str] = (
        "The evaluation has not converged, so its accuracy is too high: raise steps and restarts of its attack until "
        "the accuracy no longer falls, or take attack=autoattack_standard."
    )
    reference: ClassVar[str] = "Carlini et al. 2019; Pintor et al. 2022 (incomplete optimisation)"

    def measure(self, subject: Subject) -> tuple[float, str]:
        longer = APGD(threat=subject.threat, steps=self.steps, restarts=self.restarts, loss=self.loss)
        rows = subject.withstood
        share = int(subject.falls_to(longer, rows).sum()) / len(subject.x)
        of = f"of {len(subject.x)} samples, {len(rows)} of which withstood the evaluation"
        return share, f"{longer} breaks {share:.1%} {of}"


@dataclass(frozen=True, kw_only=True)
class LossDoesNotRise(Check):
    """Share of samples for which the white-box attack finds no point of larger margin loss (Carlini et al. 2019)."""

    advice: ClassVar[str] = (
        "The gradient does not point uphill: look for layers that round, saturate or detach, and attack without "
        "gradients (attack=square)."
    )
    reference: ClassVar[str] = "Carlini et al. 2019; Pintor et al. 2022 (unavailable gradients)"

    def measure(self, subject: Subject) -> tuple[float, str]:
        before, after = (margin(fresh_logits(subject.model, x), subject.y) for x in (subject.x, subject.x_adv))
        share = (~(after > before)).double().mean().item()
        return share, f"the white-box attack leaves the loss of {share:.1%} of {len(before)} samples where it was"
