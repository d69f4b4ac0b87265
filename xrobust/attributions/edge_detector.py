"""The edges of the image in place of an explanation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.randomness import Generator


def sobel_magnitude(x: Tensor) -> Tensor:
    """√(g_x² + g_y²) of each channel by itself: (N, C, H, W) → (N, C, H, W).

    g_x is the difference of the right and the left neighbour, summed over three rows with weights 1, 2, 1; g_y the same
    with rows and columns exchanged; the border is continued outwards (Sobel & Feldman 1968). A step of height h has 4h
    on both of its sides, and a flat image exactly 0.
    """
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 2:] - padded[..., :-2], padded[..., 2:, :] - padded[..., :-2, :]
    horizontal = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    vertical = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return torch.hypot(horizontal, vertical)


@dataclass(frozen=True, kw_only=True)
class EdgeDetector(Attribution):
    """a = the Sobel magnitude of the image: a reference that ignores the model and the label.

    A method that scores no better than it may be an edge detector itself (Adebayo et al. 2018).
    """

    differentiable: ClassVar[bool] = False
    demands: ClassVar[str] = "nothing"

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        return sobel_magnitude(x)
