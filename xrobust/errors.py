"""The errors that a user can cause and can mend."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names the value, its place and what is allowed.

    The command line prints the sentence without a traceback; library users catch it as a `ValueError`.
    """


def one_of(place: str, value: object, allowed: object) -> UserError:
    """The error for a value outside a finite set: `place`, the value given, and what is allowed."""
    return UserError(f"{place} must be one of {', '.join(map(repr, allowed))}, got {value!r}")  # type: ignore[call-overload]


def at_place(place: str, error: object) -> UserError:
    """The error with its place in front: "train_attack: PGD.steps must be …".

    Of a place that the error begins with, it says the rest: "data.root …", "callbacks.history" + "history.path …".
    """
    text = str(error)
    above, dot, name = place.rpartition(".")
    for known, missing in ((place, ""), (name, above + dot)):
        if text.startswith(tuple(f"{known}{sign}" for sign in ".=:[ ")):
            return UserError(f"{missing}{text}")
    return UserError(f"{place}: {text}")


@contextmanager
def within(place: str) -> Iterator[None]:
    """The `UserError`s of what happens inside, with their place; see `at_place`."""
    try:
        yield
    except UserError as error:
        raise at_place(place, error) from error


def require_some(**lists: Collection[object]) -> None:
    """Refuse the first of the lists that is empty.

    Raises:
        UserError: naming it.
    """
    for name, values in lists.items():
        if not values:
            raise UserError(f"{name}=[] is empty: it must name at least one")


def at_most(place: str, maximum: float, **values: float) -> None:
    """Refuse the first of the values that is above the maximum.

    Raises:
        UserError: naming `<place>.<name>`, the value and the maximum.
    """
    for name, value in values.items():
        if value > maximum:
            raise UserError(f"{place}.{name} must be at most {maximum}, got {value!r}")


def at_least(place: str, minimum: float, **values: object) -> None:
    """Refuse the first of the values that is below the minimum.

    A whole-number minimum asks for whole numbers: `at_least("PGD", 1, steps=2.5)` and `at_least("PGD", 1, steps=0)`
    fail, `at_least("PGD", 0.0, momentum=0.9)` does not.

    Raises:
        UserError: naming `<place>.<name>`, the value and the minimum.
    """
    kind = int if isinstance(minimum, int) else (int, float)
    for name, value in values.items():
        if not isinstance(value, kind) or isinstance(value, bool) or not value >= minimum:  # NaN fails, too
            what = "an integer of at least" if kind is int else "at least"
            raise UserError(f"{place}.{name} must be {what} {minimum:g}, got {value!r}")
