"""The bright part of an image as the part that matters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xrobust.errors import UserError


@dataclass(frozen=True)
class Foreground:
    """The pixels that are brighter than a threshold in any channel: (N, C, H, W) in [0, 1] → (N, H, W) bool.

    A ground truth for objects on a black background.

    Args:
        threshold: in [0, 1).
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < 1:
            raise UserError(f"Foreground.threshold must be at least 0 and below 1, got {self.threshold}")

    def __call__(self, x: Tensor) -> Tensor:
        return x.amax(1) > self.threshold
