"""Random changes of images: (x, generator) → x̃, each sample's own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xrobust.attributions import Constant
from xrobust.attributions.baselines import Baseline
from xrobust.errors import UserError
from xrobust.randomness import Generator, normal_like, uniform_like


def pixel_count(share: float, pixels: int) -> int:
    """A share of the pixels in whole pixels: at least one and, unless there is only one, not all."""
    return max(1, min(round(share * pixels), pixels - 1))


def check_share(place: str, share: float) -> None:
    """Refuse what is no share between 0 and 1, both excluded."""
    if not 0 < share < 1:
        raise UserError(f"{place} must be above 0 and below 1, got {share}")


def random_pixels(x: Tensor, count: int, generator: Generator) -> Tensor:
    """A uniform draw of `count` pixels of each image, without replacement: (N, C, H, W) → (N, 1, H, W) bool."""
    drawn = uniform_like(x[:, :1], generator)
    pixels = x.shape[-2] * x.shape[-1]
    # Draws are multiples of 2⁻²⁴: as whole numbers with the pixel's place behind, no two are equal.
    keys = drawn.flatten(1).double() * 2**24 * pixels + torch.arange(pixels, device=x.device)
    return (keys <= keys.kthvalue(count, dim=1, keepdim=True).values).view_as(drawn)


class Perturbation(ABC):
    """Draws a changed copy of each image from the generator."""

    @abstractmethod
    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        """(N, C, H, W) → (N, C, H, W); the copies need not be in [0, 1]."""


@dataclass(frozen=True)
class PixelNoise(Perturbation):
    """x̃ = x − I, I ~ N(0, σ²) for each entry.

    Args:
        sigma: σ > 0, in units of the pixel range.
    """

    sigma: float = 0.2

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise UserError(f"PixelNoise.sigma must be above 0, got {self.sigma}")

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        return x - self.sigma * normal_like(x, generator).to(x.dtype)


@dataclass(frozen=True)
class SquareRemoval(Perturbation):
    """A square patch at a uniformly drawn place within the image is taken from a baseline.

    Args:
        share: the patch's side as a share of the image's shorter side, in (0, 1); at least one pixel.
        baseline: images → images without information.
    """

    share: float = 0.25
    baseline: Baseline = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_share("SquareRemoval.share", self.share)

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        side = max(1, round(self.share * min(x.shape[-2:])))
        place = uniform_like(x.new_empty(len(x), 2), generator)
        rows, columns = (_interval(place[:, axis], side, x.shape[axis - 2]) for axis in (0, 1))
        return self.baseline(x).where((rows[:, :, None] & columns[:, None, :])[:, None], x)


@dataclass(frozen=True)
class PixelRemoval(Perturbation):
    """A random set of pixels, all channels at once, is taken from a baseline.

    Args:
        share: its size as a share of the pixels, in (0, 1); at least one pixel, and not all.
        baseline: images → images without information.
    """

    share: float = 0.2
    baseline: Baseline = field(default_factory=Constant)

    def __post_init__(self) -> None:
        check_share("PixelRemoval.share", self.share)

    def __call__(self, x: Tensor, generator: Generator) -> Tensor:
        count = pixel_count(self.share, x.shape[-2] * x.shape[-1])
        return self.baseline(x).where(random_pixels(x, count, generator), x)


def _interval(place: Tensor, length: int, size: int) -> Tensor:
    """`length` neighbours among `size` positions, the first of them at the share `place` of the room: (N, size)."""
    first = (place * (size - length + 1)).long()[:, None]
    position = torch.arange(size, device=place.device)
    return (position >= first) & (position < first + length)
