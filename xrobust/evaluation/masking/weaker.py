"""An attack that ought to be weaker breaks what the white-box attack does not."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from xrobust.attacks import FGSM, Attack, Square, Transfer, UniformNoise
from xrobust.evaluation.masking.base import Check
from xrobust.evaluation.masking.subject import Subject

ADAPT = (
    "The gradients mislead the white-box attack, so its accuracy is too high: add this attack to the evaluation, and "
    "find out which part of the model hides the gradient."
)


@dataclass(frozen=True, kw_only=True)
class WeakerAttackWins(Check):
    """|broken by the weaker attack, not by the white-box attack| / N; a white-box attack that works leaves nothing."""

    advice: ClassVar[str] = ADAPT
    what: ClassVar[str]

    @abstractmethod
    def weaker(self, subject: Subject) -> Attack:
        """The attack that ought to find no more."""

    def measure(self, subject: Subject) -> tuple[float, str]:
        missed = subject.falls_to(self.weaker(subject)) & ~subject.broken
        share = missed.double().mean().item()
        of = f"of {len(missed)} samples at {subject.threat}"
        return share, f"{self.what} breaks {share:.1%} {of} that the white-box attack leaves standing"


@dataclass(frozen=True, kw_only=True)
class SingleStepWins(WeakerAttackWins):
    """One step against many (Athalye et al. 2018, section 3.1)."""

    reference: ClassVar[str] = "Athalye et al. 2018, Obfuscated gradients give a false sense of security"
    what: ClassVar[str] = "A single step (FGSM)"

    def weaker(self, subject: Subject) -> Attack:
        return FGSM(threat=subject.threat)


@dataclass(frozen=True, kw_only=True)
class BlackBoxWins(WeakerAttackWins):
    """Random search without gradients against the gradient (Athalye et al. 2018; AutoAttack's flag for Square).

    Args:
        queries: of the Square attack, ≥ 1.
    """

    queries: int = 500

    reference: ClassVar[str] = "Athalye et al. 2018; Croce & Hein 2020, AutoAttack"
    what: ClassVar[str] = "A black-box attack (Square)"

    def weaker(self, subject: Subject) -> Attack:
        return Square(threat=subject.threat, queries=self.queries)


@dataclass(frozen=True, kw_only=True)
class NoiseWins(WeakerAttackWins):
    """Random points of the ball against the gradient (Athalye et al. 2018; Carlini et al. 2019).

    Args:
        draws: random points for each sample, ≥ 1.
    """

    draws: int = 100

    reference: ClassVar[str] = "Athalye et al. 2018; Carlini et al. 2019, On evaluating adversarial robustness"
    what: ClassVar[str] = "Random noise"

    def weaker(self, subject: Subject) -> Attack:
        return UniformNoise(threat=subject.threat, draws=self.draws)


@dataclass(frozen=True, kw_only=True)
class TransferWins(WeakerAttackWins):
    """Examples of an undefended model against the model's own gradient (Athalye et al. 2018; Carlini et al. 2019)."""

    reference: ClassVar[str] = "Athalye et al. 2018; Carlini et al. 2019"
    what: ClassVar[str] = "An attack on the surrogate model"

    def applies(self, subject: Subject) -> bool:
        return subject.surrogate is not None

    def weaker(self, subject: Subject) -> Attack:
        assert subject.surrogate is not None
        return Transfer(threat=subject.threat, attack=subject.white_box, surrogate=subject.surrogate)
