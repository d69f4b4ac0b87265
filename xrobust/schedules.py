"""Schedules: how far a run has come, from 0 to 1, → a factor on a learning rate, a radius or a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from xrobust.errors import UserError, at_least


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} must be a share of the run in [0, 1], got {value}")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """factor(t) = value."""

    value: float = 1.0

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """`initial` up to t = `start`, 1 from t = `end` on, between them initial + (1 − initial)·rise(u), rise(u) = u.

    Args:
        start, end: shares of the run, 0 ≤ start ≤ end ≤ 1.
        initial: the first factor, in [0, 1).
    """

    start: float = 0.0
    end: float = 0.5
    initial: float = 0.0

    def __post_init__(self) -> None:
        place = type(self).__name__
        if not 0 <= self.start <= self.end <= 1:
            shares = f"got {self.start} and {self.end}"
            raise UserError(f"{place}.start and .end must be shares of the run, 0 ≤ start ≤ end ≤ 1, {shares}")
        if not 0 <= self.initial < 1:
            raise UserError(f"{place}.initial must lie in [0, 1), got {self.initial}")

    def __call__(self, progress: float) -> float:
        if progress >= self.end:
            return 1.0
        if progress <= self.start:
            return self.initial
        return self.initial + (1 - self.initial) * self.rise((progress - self.start) / (self.end - self.start))

    def rise(self, u: float) -> float:
        """The share of the height at the share u of the way from `start` to `end`: (0, 1) → [0, 1]."""
        return u


@dataclass(frozen=True, kw_only=True)
class SmoothRamp(Ramp):
    """rise(u) ∝ u⁴ for u ≤ m, then linear with the slope that it has at m (Xu et al. 2020, Shi et al. 2021).

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
    """n equal steps: rise(u) = ⌊n·u⌋ / n.

    Args:
        steps: n ≥ 1; 1 is a jump at t = `end`.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 1, steps=self.steps)

    def rise(self, u: float) -> float:
        return int(self.steps * u) / self.steps


@dataclass(frozen=True, kw_only=True)
class LogarithmicRamp(Ramp):
    """The factor is log(e^{initial·s} + (e^s − e^{initial·s})·u) / s, the radius of GloRo nets (Leino et al. 2021).

    Args:
        scale: s > 0, the full radius in pixel units; nearly a straight line if it is small.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scale > 0:
            raise UserError(f"{type(self).__name__}.scale must be above 0, got {self.scale}")

    def rise(self, u: float) -> float:
        first = math.exp(self.initial * self.scale)
        factor = math.log(first + (math.exp(self.scale) - first) * u) / self.scale
        return (factor - self.initial) / (1 - self.initial)


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Cosine from 1/`initial_divisor` up to 1 at t = `peak`, then cosine down to 1/`final_divisor` (Smith 2018)."""

    peak: float = 0.3
    initial_divisor: float = 25.0
    final_divisor: float = 2.5e5

    def __post_init__(self) -> None:
        _check_share("OneCycle.peak", self.peak)

    def __call__(self, progress: float) -> float:
        if progress < self.peak:
            return _cosine(1 / self.initial_divisor, 1.0, progress / self.peak)
        return _cosine(1.0, 1 / self.final_divisor, (progress - self.peak) / (1 - self.peak) if self.peak < 1 else 1.0)


@dataclass(frozen=True, kw_only=True)
class Cyclic:
    """Linear from 0 up to 1 at t = `peak`, then linear down to 0: one triangle (Smith 2017, Wong et al. 2020)."""

    peak: float = 0.5

    def __post_init__(self) -> None:
        _check_share("Cyclic.peak", self.peak)

    def __call__(self, progress: float) -> float:
        if progress < self.peak:
            return progress / self.peak
        return (1 - progress) / (1 - self.peak) if self.peak < 1 else 1.0


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 down to `end` (Loshchilov & Hutter 2017)."""

    end: float = 0.0

    def __call__(self, progress: float) -> float:
        return _cosine(1.0, self.end, progress)


@dataclass(frozen=True, kw_only=True)
class Piecewise:
    """factor(t) = `decay`^(number of milestones ≤ t): the step schedule of most papers."""

    milestones: Sequence[float] = field(default=(0.5, 0.75))
    decay: float = 0.1

    def __post_init__(self) -> None:
        for milestone in self.milestones:
            _check_share("Piecewise.milestones", milestone)

    def __call__(self, progress: float) -> float:
        return self.decay ** sum(progress >= milestone for milestone in self.milestones)


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


def _cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(max(t, 0.0), 1.0))) / 2
