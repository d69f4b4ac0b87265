"""Attacks made from other attacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from xrobust.attacks.base import Attack
from xrobust.errors import UserError


def require_same_threat(outer: Attack, inner: Attack, place: str) -> None:
    """Refuse an inner attack on another ball than the outer one's.

    Raises:
        UserError: naming both threat models.
    """
    if inner.threat != outer.threat:
        raise UserError(f"{place}.threat must be {outer.threat}, as around it, got {inner.threat}")


@dataclass(frozen=True, kw_only=True)
class Wrapper(Attack):
    """An attack that runs another one, on the same threat model.

    Args:
        attack: the inner attack; it keeps its own mode and autocast.
    """

    attack: Attack

    def __post_init__(self) -> None:
        super().__post_init__()
        require_same_threat(self, self.attack, f"{type(self).__name__}.attack")

    @property
    def misleads(self) -> bool:
        return self.attack.misleads

    def with_eps(self, eps: object) -> Self:
        return replace(self, threat=self.threat.with_eps(eps), attack=self.attack.with_eps(eps))  # type: ignore[arg-type]
