"""Schedules at their corners."""

from __future__ import annotations

import math

import pytest

from xrobust.errors import UserError
from xrobust.schedules import (
    Constant,
    Cosine,
    HeldDecay,
    LogarithmicRamp,
    OneCycle,
    Piecewise,
    Ramp,
    SmoothRamp,
    StepRamp,
)


@pytest.mark.parametrize("ramp", [Ramp, SmoothRamp, StepRamp, LogarithmicRamp])
def test_ramps_wait_rise_and_end_exactly_at_one(ramp: type) -> None:
    factor = ramp(start=0.2, end=0.6, initial=0.1)
    values = [factor(t / 100) for t in range(101)]
    assert values[:21] == [0.1] * 21 and values[60:] == [1] * 41
    assert values == sorted(values) and 0.1 < values[59] < 1
    assert ramp(start=0.0, end=0.0)(0.0) == 1


def test_the_smooth_ramp_starts_as_a_fourth_power_and_goes_on_linearly() -> None:
    factor = SmoothRamp(start=0.0, end=1.0, middle=0.25)
    assert factor(0.2) / factor(0.1) == pytest.approx(16)
    slopes = [(factor(t + 1e-6) - factor(t - 1e-6)) / 2e-6 for t in (0.25, 0.4, 0.9)]
    assert slopes == pytest.approx([slopes[0]] * 3, rel=1e-4)
    assert factor(1 - 1e-12) == pytest.approx(1)
    assert SmoothRamp(end=1.0, middle=0.0)(0.3) == pytest.approx(0.3)
    assert SmoothRamp(end=1.0, middle=1.0)(0.5) == pytest.approx(1 / 16)
    assert [StepRamp(end=1.0, steps=4)(t) for t in (0.24, 0.26, 0.99)] == [0, 0.25, 0.75]


def test_ramps_have_their_papers_shapes() -> None:
    assert Ramp(end=0.4, initial=0.2)(0.2) == pytest.approx(0.6)
    assert LogarithmicRamp(initial=0.01, end=0.5)(0.25) == pytest.approx(math.log((math.e + math.exp(0.01)) / 2))
    # GloRo nets at 36/255: from 0.01 ε to 1.1 ε, r(u) = log(e^{0.01 ε} + (e^{1.1 ε} − e^{0.01 ε}) u).
    eps, full = 36 / 255, 39.6 / 255
    ramp = LogarithmicRamp(initial=0.01 / 1.1, end=1.0, scale=full)
    for u, radius in ((0.1, 0.0179), (0.25, 0.0422), (0.5, 0.0813)):
        assert full * ramp(u) == pytest.approx(radius, abs=5e-5)
    assert full * ramp(0.0) == pytest.approx(0.01 * eps)


def test_a_held_decay_is_exponential_after_its_hold() -> None:
    decay = HeldDecay(hold=0.5, final=1e-4)
    assert decay(0.0) == decay(0.5) == 1.0
    assert decay(0.75) == pytest.approx(1e-2) and decay(1.0) == pytest.approx(1e-4)


def test_one_cycle_rises_to_one_at_its_peak_and_falls() -> None:
    cycle = OneCycle(peak=0.3)
    assert [cycle(t) for t in (0, 0.3, 1)] == pytest.approx([1 / 25, 1, 1 / 2.5e5])
    assert cycle(0.1) < cycle(0.2) < cycle(0.3) > cycle(0.6) > cycle(0.9)
    assert OneCycle(peak=1.0)(1.0) == pytest.approx(1 / 2.5e5)


def test_piecewise_decays_at_each_milestone() -> None:
    steps = Piecewise(milestones=[0.5, 0.75], decay=0.1)
    assert [steps(t) for t in (0, 0.49, 0.5, 0.75, 1)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])


def test_cosine_and_constant() -> None:
    assert [Cosine(end=0.1)(t) for t in (0, 0.5, 1)] == pytest.approx([1, 0.55, 0.1])
    assert Constant(value=0.7)(0.3) == 0.7


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ramp(end=1.5), "Ramp.start and .end must be shares of the run"),
        (lambda: SmoothRamp(start=0.5, end=0.2), "start ≤ end"),
        (lambda: LogarithmicRamp(initial=2.0), "LogarithmicRamp.initial"),
        (lambda: SmoothRamp(middle=2.0), "SmoothRamp.middle"),
        (lambda: StepRamp(steps=0), "StepRamp.steps"),
        (lambda: OneCycle(peak=-1), r"share of the run in \[0, 1\]"),
        (lambda: Piecewise(milestones=[2]), r"share of the run in \[0, 1\]"),
        (lambda: HeldDecay(hold=1.0), "HeldDecay.hold"),
        (lambda: HeldDecay(final=0.0), ".final above 0"),
    ],
)
def test_bad_values_are_refused(make, words) -> None:
    with pytest.raises(UserError, match=words):
        make()
