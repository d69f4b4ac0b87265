"""The errors that a user can cause and can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names the value, its place and what is allowed.

    The command line prints the sentence without a traceback; library users catch it as a `ValueError`.
    """


def one_of(place: str, value: object, allowed: object) -> UserError:
    """The error for a value outside a finite set: `place`, the value given, and what is allowed."""
    return UserError(f"{place} must be one of {', '.join(map(repr, allowed))}, got {value!r}")  # type: ignore[call-overload]
