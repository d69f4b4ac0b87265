"""Input normalisation as the first layer of a model, so that every model takes images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from xrobust.errors import UserError


class Normalize(nn.Module):
    """(x − mean) / std for each channel; the identity where mean and std are None.

    Args:
        mean: one number for each channel, in units of the pixel range [0, 1], or None.
        std: one number > 0 for each channel, or None; given exactly when the mean is.
        channels: C.

    Shapes: (N, C, H, W) → (N, C, H, W). The buffers `mean` and `std` have shape (C, 1, 1), or are None.

    Raises:
        UserError: if the lengths are not C, a std is not above 0, or only one of the two is given.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, mean: Sequence[float] | None, std: Sequence[float] | None, channels: int):
        super().__init__()
        if (mean is None) != (std is None):
            raise UserError(f"model.mean and model.std go together, got mean={mean} and std={std}")
        for name, values in (("mean", mean), ("std", std)):
            if values is not None and len(values) != channels:
                raise UserError(f"model.{name} must have one number for each of {channels} channels, got {values}")
        if std is not None and not all(value > 0 for value in std):
            raise UserError(f"model.std must be above 0 in every channel, got {std}")
        self.register_buffer("mean", _column(mean))
        self.register_buffer("std", _column(std))

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return x
        return (x - self.mean) / self.std


def _column(values: Sequence[float] | None) -> Tensor | None:
    return None if values is None else torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)
