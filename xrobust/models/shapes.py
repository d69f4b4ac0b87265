"""How far convolutions and poolings shrink an image."""

from __future__ import annotations

from itertools import count

from xrobust.errors import UserError


def side_after(image_size: int, windows: list[tuple[int, int, int]]) -> int:
    """The side of the feature map after convolutions and poolings (kernel, stride, padding) in turn.

    side ← ⌊(side + 2·padding − kernel) / stride⌋ + 1

    Raises:
        UserError: if nothing is left of the image; it names the smallest image that works.
    """
    side = _shrink(image_size, windows)
    if side < 1:
        smallest = next(size for size in count(image_size) if _shrink(size, windows) >= 1)
        raise UserError(f"model.image_size={image_size} is too small for this model, it needs at least {smallest}")
    return side


def _shrink(side: int, windows: list[tuple[int, int, int]]) -> int:
    for kernel, stride, padding in windows:
        side = (side + 2 * padding - kernel) // stride + 1
        if side < 1:
            return 0
    return side
