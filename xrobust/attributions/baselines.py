"""Baselines: images x → images x' of the same shape that stand for "nothing to see".

A baseline is a function of the images alone, or a `RandomBaseline`, which draws its images from a distribution.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.errors import UserError
from xrobust.randomness import Generator, uniform_like

Baseline = Callable[[Tensor], Tensor]


class RandomBaseline(ABC):
    """A baseline that is drawn anew each time, for each image from its own random stream."""

    @abstractmethod
    def draw(self, x: Tensor, generator: Generator) -> Tensor:
        """One x' for each image, of x's shape."""

    def __call__(self, x: Tensor) -> Tensor:
        raise UserError(f"{type(self).__name__} draws its images; here the baseline must be a function of the image")


AnyBaseline = Baseline | RandomBaseline


def baseline_images(baseline: AnyBaseline, x: Tensor, generator: Generator | None) -> Tensor:
    """The images x' for x; a baseline that draws needs the generator."""
    if isinstance(baseline, RandomBaseline):
        assert generator is not None
        return baseline.draw(x, generator)
    return baseline(x)


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
    """The same image for all samples, (C, H, W), or one for each, (N, C, H, W).

    One for each is for a single call: an attack on the maps calls with parts of a batch, and with several runs at once.
    """

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


@dataclass(frozen=True)
class UniformImages(RandomBaseline):
    """Images of noise: each entry is drawn from U(low, high)."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise UserError(f"UniformImages.low must not exceed high, got {self.low} and {self.high}")

    def draw(self, x: Tensor, generator: Generator) -> Tensor:
        return self.low + (self.high - self.low) * uniform_like(x, generator).to(x.dtype)


@dataclass(frozen=True, eq=False)
class ReferenceImages(RandomBaseline):
    """Images drawn, with replacement, from a given set, such as some training images.

    Args:
        images: the set, (M, C, H, W) with values in [0, 1], or the path of an .npz file that holds it under the
            name `images`, as floats or as uint8 in 0 ... 255.

    Raises:
        UserError: if the file cannot be read, or the images are not of that form.
    """

    images: Tensor | str | Path

    def __post_init__(self) -> None:
        images = self.images if isinstance(self.images, Tensor) else _read_images(Path(self.images))
        if images.dim() != 4 or not len(images):
            raise UserError(f"reference images must be (M, C, H, W) with M ≥ 1, got {tuple(images.shape)}")
        if not ((images >= 0) & (images <= 1)).all():
            raise UserError("reference images must lie in [0, 1]")
        object.__setattr__(self, "images", images.detach())

    def draw(self, x: Tensor, generator: Generator) -> Tensor:
        images = self.images
        assert isinstance(images, Tensor)
        if images.shape[1:] != x.shape[1:]:
            raise UserError(f"reference images {tuple(images.shape)} do not fit images {tuple(x.shape)}")
        return images[_choices(len(images), x, generator).to(images.device)].to(x.device, x.dtype)


@dataclass(frozen=True)
class Mixture(RandomBaseline):
    """One of several baselines for each image, all with the same probability.

    Args:
        parts: the baselines, at least one.
    """

    parts: Sequence[AnyBaseline]

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("Mixture.parts must hold at least one baseline")

    def draw(self, x: Tensor, generator: Generator) -> Tensor:
        chosen = _choices(len(self.parts), x, generator)
        drawn = torch.stack([baseline_images(part, x, generator) for part in self.parts])
        return drawn[chosen, torch.arange(len(x), device=x.device)]


def _choices(count: int, x: Tensor, generator: Generator) -> Tensor:
    """A uniform draw from range(count) for each image: (N,)."""
    return (uniform_like(x.flatten(1)[:, 0], generator).double() * count).long()


def _read_images(path: Path) -> Tensor:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            images = torch.from_numpy(file["images"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except KeyError:
        raise UserError(f"{path} must hold an array of the name images") from None
    except (OSError, ValueError, EOFError, TypeError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is not a readable .npz file: {error}") from error
    return images / 255 if images.dtype == torch.uint8 else images.float()
