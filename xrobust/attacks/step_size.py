"""How far a step of an iterative attack goes."""

from __future__ import annotations

from fractions import Fraction

from xrobust.errors import UserError
from xrobust.threat import ThreatModel, exact_fraction

StepSize = Fraction | float | str | None
"""α in pixel units ("2/255"); none means 2.5 · ε / steps, so that α follows ε."""


def check_step_size(place: str, step_size: StepSize) -> None:
    """Refuse a step that goes nowhere.

    Raises:
        UserError: naming the place and the value.
    """
    if step_size is not None and exact_fraction(step_size, f"{place}.step_size") <= 0:
        raise UserError(f"{place}.step_size must be above 0, got {step_size}")


def pixel_step(step_size: StepSize, threat: ThreatModel, steps: int) -> float:
    """α in pixel units."""
    return 2.5 * threat.radius / steps if step_size is None else float(exact_fraction(step_size, "step_size"))
