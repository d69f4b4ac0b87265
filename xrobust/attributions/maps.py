"""From a map over places, one number each, to an attribution of x's shape."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resized(maps: Tensor, x: Tensor) -> Tensor:
    """Bilinear interpolation to the size of the images: (N, h, w) → (N, H, W)."""
    return F.interpolate(maps[:, None], x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def over_channels(maps: Tensor, x: Tensor) -> Tensor:
    """An equal share for each of the C channels, so that they sum to the map: (N, H, W) → (N, C, H, W)."""
    return (maps / x.shape[1])[:, None].expand_as(x).contiguous()


def has_places(features: Tensor, x: Tensor) -> bool:
    """Whether features are maps (N, K, h, w) of more than one pixel, with the images' proportions up to rounding."""
    if features.dim() != 4 or len(features) != len(x):
        return False
    (h, w), (height, width) = features.shape[-2:], x.shape[-2:]
    return h * w > 1 and h <= height and w <= width and abs(h * width - w * height) <= max(height, width)
