"""Schedules at their corners."""

from __future__ import annotations

import pytest

from xrobust.errors import UserError
from xrobust.schedules import Constant, Cosine, OneCycle, Piecewise, Ramp


def test_ramp_is_linear_then_one() -> None:
    ramp = Ramp(start=0.2, end=0.4)
    assert [ramp(t) for t in (0, 0.2, 0.4, 1)] == pytest.approx([0.2, 0.6, 1, 1])
    assert Ramp(end=0)(0) == 1


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


@pytest.mark.parametrize("make", [lambda: Ramp(end=1.5), lambda: OneCycle(peak=-1), lambda: Piecewise(milestones=[2])])
def test_shares_outside_the_run_are_refused(make) -> None:
    with pytest.raises(UserError, match=r"share of the run in \[0, 1\]"):
        make()
