"""What an error says, for a sentence."""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """The first line of the message, or the kind of error if there is none."""
    return (str(error) or type(error).__name__).splitlines()[0]
