"""Whether the most relevant pixel matters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.errors import at_least
from xrobust.metrics.localisation import LocalisationMetric


def widened(mask: Tensor, radius: int) -> Tensor:
    """The pixels within a Euclidean distance of the mask: (N, H, W) bool → (N, H, W) bool."""
    offset = torch.arange(-radius, radius + 1, device=mask.device)
    disc = (offset.square()[:, None] + offset.square() <= radius**2).float()
    return F.conv2d(mask[:, None].float(), disc[None, None], padding=radius)[:, 0] > 0.5


def pointing_game(values: Tensor, mask: Tensor, tolerance: int = 0) -> Tensor:
    """Whether argmax v is within `tolerance` pixels of the mask; of tied maxima the share that is.

    Shapes: (N, H, W), (N, H, W) bool → (N,).
    """
    top = values == values.amax((1, 2), keepdim=True)
    return (top & widened(mask, tolerance)).sum((1, 2)).double() / top.sum((1, 2))


class PointingGame(LocalisationMetric):
    """Whether the most relevant pixel is one that matters (Zhang et al. 2016).

    Args:
        tolerance: by how many pixels the point may miss, ≥ 0.
        signed: see `LocalisationMetric`.
    """

    def __init__(self, tolerance: int = 0, signed: bool = False):
        super().__init__(signed)
        at_least("PointingGame", 0, tolerance=tolerance)
        self.tolerance = tolerance

    def score(self, values: Tensor, mask: Tensor) -> Tensor:
        return pointing_game(values, mask, self.tolerance)
