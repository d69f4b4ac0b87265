"""How a radius grows from nothing to its full size: share of the run that is done → factor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from xrobust.errors import UserError, at_least


@dataclass(frozen=True, kw_only=True)
class Ramp(ABC):
    """0 up to t = `start` (the warm-up), 1 from t = `end` on, `rise` in between.

    Args:
        start, end: shares of the run, 0 ≤ start ≤ end ≤ 1.
    """

    start: float = 0.0
    end: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            place = f"{type(self).__name__}.start and .end"
            raise UserError(f"{place} must be shares of the run, 0 ≤ start ≤ end ≤ 1, got {self.start} and {self.end}")

    def __call__(self, progress: float) -> float:
        if progress >= self.end:
            return 1.0
        return self.rise((progress - self.start) / (self.end - self.start)) if progress > self.start else 0.0

    @abstractmethod
    def rise(self, u: float) -> float:
        """The factor at the share u of the way from `start` to `end`: (0, 1) → [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class LinearRamp(Ramp):
    """factor(u) = u."""

    def rise(self, u: float) -> float:
        return u


@dataclass(frozen=True, kw_only=True)
class SmoothRamp(Ramp):
    """factor(u) ∝ u⁴ for u ≤ m, then linear with the slope that it has at m (Xu et al. 2020, Shi et al. 2021).

    Args:
        middle: m in [0, 1].
    """

    middle: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.middle <= 1:
            raise UserError(f"{type(self).__name__}.middle must lie in [0, 1], got {self.middle}")

    def rise(self, u: float) -> float:
        if self.middle == 0:
            return u
        # In units of m: v⁴, then 1 + 4 (v − 1).
        v, last = u / self.middle, 1 / self.middle
        return (v**4 if v <= 1 else 4 * v - 3) / (4 * last - 3)


@dataclass(frozen=True, kw_only=True)
class StepRamp(Ramp):
    """n equal steps: factor(u) = ⌊n·u⌋ / n.

    Args:
        steps: n ≥ 1; 1 is a jump at t = `end`.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 1, steps=self.steps)

    def rise(self, u: float) -> float:
        return int(self.steps * u) / self.steps
