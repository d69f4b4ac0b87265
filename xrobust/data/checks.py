"""Checks of the data configuration."""

from __future__ import annotations

from xrobust.errors import UserError


def at_least(minimum: int, **values: int) -> None:
    """Raise a `UserError` that names the first of the values that is not an integer ≥ minimum."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise UserError(f"data.{name}={value!r} must be an integer of at least {minimum}")
