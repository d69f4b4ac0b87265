"""Schedules: how far a run has come, from 0 to 1, → a factor on a learning rate, a radius or a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from xrobust.errors import UserError


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
    """Linear from `start` at t = 0 to 1 at t = `end`, then 1."""

    start: float = 0.0
    end: float = 0.5

    def __post_init__(self) -> None:
        _check_share("Ramp.end", self.end)

    def __call__(self, progress: float) -> float:
        return 1.0 if progress >= self.end else self.start + (1 - self.start) * progress / self.end


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


def _cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(max(t, 0.0), 1.0))) / 2
