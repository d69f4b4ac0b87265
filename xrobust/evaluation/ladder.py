"""What is attacked with: an attack against a threat model, and perhaps at other radii."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from xrobust.attacks import Attack, WorstOf
from xrobust.attacks.base import require_misleading
from xrobust.threat import ThreatModel, exact_fraction


@dataclass(frozen=True)
class Ladder:
    """An attack at ascending radii: what falls at a radius has fallen at every larger one.

    A rung attacks only the samples that stood on the rung below; the adversarial example of the others is carried
    on, for it lies in the larger ball as well. So a security curve can only fall.

    Args:
        attack: the attack at the radius of its threat model, which is a rung as well.
        eps: further radii; step sizes that follow from ε follow.

    Raises:
        UserError: if the attack does not look for images that the model gets wrong.
    """

    attack: Attack
    eps: Sequence[Fraction | float | str] = ()

    def __post_init__(self) -> None:
        require_misleading(self.attack, "the attack of an evaluation")

    @cached_property
    def rungs(self) -> tuple[Attack, ...]:
        """The attack at each radius, upwards."""
        radii = {exact_fraction(eps, "eps") for eps in self.eps} | {self.threat.fraction}
        return tuple(self.attack.with_eps(radius) for radius in sorted(radii))

    @property
    def threat(self) -> ThreatModel:
        """The threat model itself."""
        return self.attack.threat

    @property
    def own(self) -> int:
        """The rung at the radius of the threat model."""
        return [rung.threat for rung in self.rungs].index(self.threat)

    @property
    def members(self) -> list[str]:
        """The names of the attacks that take turns; one, unless the attack is composed."""
        return list(self.attack.attacks) if isinstance(self.attack, WorstOf) else [type(self.attack).__name__]
