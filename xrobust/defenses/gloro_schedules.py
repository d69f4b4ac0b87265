"""How GloRo nets move their radius and their learning rate: share of the run that is done → factor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xrobust.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LogarithmicRamp:
    """log(e^start + (e − e^start)·t/end), from `start` up to 1 at t = `end`, then 1 (Leino et al. 2021).

    Args:
        start: the first factor, in [0, 1].
        end: a share of the run in (0, 1].
    """

    start: float = 0.01
    end: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1 or not 0 < self.end <= 1:
            raise UserError(
                f"LogarithmicRamp.start and .end must lie in [0, 1], .end above 0, got {self.start} and {self.end}"
            )

    def __call__(self, progress: float) -> float:
        if progress >= self.end:
            return 1.0
        first = math.exp(self.start)
        return math.log(first + (math.e - first) * progress / self.end)


@dataclass(frozen=True, kw_only=True)
class HeldDecay:
    """1 until t = `hold`, then exponentially down to `final` at t = 1 (Leino et al. 2021).

    Args:
        hold: a share of the run in [0, 1).
        final: the last factor, above 0.
    """

    hold: float = 0.5
    final: float = 1e-3

    def __post_init__(self) -> None:
        if not 0 <= self.hold < 1 or not self.final > 0:
            raise UserError(f"HeldDecay.hold must lie in [0, 1) and .final above 0, got {self.hold} and {self.final}")

    def __call__(self, progress: float) -> float:
        return 1.0 if progress <= self.hold else self.final ** ((progress - self.hold) / (1 - self.hold))
