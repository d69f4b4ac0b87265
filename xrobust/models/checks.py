"""Checks of model hyper-parameters."""

from __future__ import annotations

from itertools import count

from xrobust.errors import UserError


def at_least(minimum: int, **values: int) -> None:
    """Raise a `UserError` that names the first of the values that is not an integer ≥ minimum."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise UserError(f"model.{name} must be an integer of at least {minimum}, got {value!r}")


def side_after(image_size: int, windows: list[tuple[int, int, int]]) -> int:
    """The side of the feature map after convolutions and poolings (kernel, stride, padding) in turn.

    side ← ⌊(side + 2·padding − kernel) / stride⌋ + 1

    Raises:
        UserError: if nothing is left of the image; it names the smallest image that works.
    """
    side = _shrink(image_size, windows)
    if side < 1:
        smallest = next(size for size in count(image_size) if _shrink(size, windows) >= 1)
        raise UserError(
            f"model.image_size={image_size} is too small for this model, it needs at least {smallest}"
        )
    return side


def _shrink(side: int, windows: list[tuple[int, int, int]]) -> int:
    for kernel, stride, padding in windows:
        side = (side + 2 * padding - kernel) // stride + 1
        if side < 1:
            return 0
    return side
