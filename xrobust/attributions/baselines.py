"""Baselines: images x → images x' of the same shape that stand for "nothing to see"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.errors import UserError

Baseline = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Constant:
    """One value for every pixel; 0 is black."""

    value: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        return torch.full_like(x, self.value)


@dataclass(frozen=True)
class ImageMean:
    """The mean colour of each image."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.mean((-2, -1), keepdim=True).expand_as(x)


@dataclass(frozen=True, eq=False)
class FixedImages:
    """The same image for all samples, (C, H, W), or one for each, (N, C, H, W)."""

    images: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        try:
            return self.images.to(x.device, x.dtype).expand_as(x)
        except RuntimeError:
            raise UserError(
                f"a baseline of shape {tuple(self.images.shape)} does not fit images {tuple(x.shape)}"
            ) from None


@dataclass(frozen=True)
class GaussianBlur:
    """Each image, blurred; the border is continued outwards, so that it does not darken.

    The defaults are those of the insertion game (Petsiuk et al. 2018, for 224 × 224 images).

    Args:
        kernel_size: side of the square kernel in pixels, odd and ≥ 1.
        sigma: standard deviation in pixels, > 0.
    """

    kernel_size: int = 11
    sigma: float = 5.0

    def __post_init__(self) -> None:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise UserError(f"GaussianBlur.kernel_size must be odd and at least 1, got {self.kernel_size}")
        if not self.sigma > 0:
            raise UserError(f"GaussianBlur.sigma must be above 0, got {self.sigma}")

    def __call__(self, x: Tensor) -> Tensor:
        radius = self.kernel_size // 2
        offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-offset.square() / (2 * self.sigma**2))
        kernel = kernel / kernel.sum()
        channels = x.shape[1]
        padded = F.pad(x, [radius] * 4, mode="replicate")
        rows = F.conv2d(padded, kernel.expand(channels, 1, 1, -1), groups=channels)
        return F.conv2d(rows, kernel[:, None].expand(channels, 1, -1, 1), groups=channels)
