"""Images in which a small patch alone decides the label."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from xrobust.data.arrays import Arrays
from xrobust.data.base import ImageDataModule
from xrobust.errors import UserError, at_least
from xrobust.randomness import mix


@dataclass(kw_only=True, eq=False)
class PlantedPatch(ImageDataModule):
    """The images of another set with new labels that have nothing to do with them, and a patch that shows the label.

    Each class has a pattern of black and white pixels, half of them white, so that brightness does not tell the
    classes apart. Labels and places are drawn independently of the image. The patch is the ground truth.

    Args:
        source: the images; their labels are not used.
        patch_size: side of the patch in pixels, ≥ 2.
        step: the patch's corner lies at multiples of it, ≥ 1; `patch_size` puts the patches on a grid.
        patch_seed: of the patterns, the labels and the places.
    """

    source: ImageDataModule
    patch_size: int = 7
    step: int = 7
    patch_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data", 2, patch_size=self.patch_size)
        at_least("data", 1, step=self.step)
        at_least("data", 0, patch_seed=self.patch_seed)
        if self.patch_size > self.image_size:
            raise UserError(f"data.patch_size={self.patch_size} must be at most data.image_size={self.image_size}")
        pixels = self.patch_size**2
        if comb(pixels, pixels // 2) < self.num_classes:
            raise UserError(f"data.patch_size={self.patch_size} has too few patterns for {self.num_classes} classes")

    def load(self) -> Arrays:
        images = self.source.load()
        patterns = class_patterns(self.num_classes, self.patch_size, torch.Generator().manual_seed(self.patch_seed))
        x_train, y_train, mask_train = self._plant(images.x_train, patterns, 0)
        x_test, y_test, mask_test = self._plant(images.x_test, patterns, 1)
        return Arrays(x_train, y_train, x_test, y_test, mask_train=mask_train, mask_test=mask_test)

    def _plant(self, images: Tensor, patterns: Tensor, part: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(mix(self.patch_seed, part))
        labels = torch.randperm(len(images), generator=generator) % self.num_classes
        places = (self.image_size - self.patch_size) // self.step + 1
        corners = self.step * torch.randint(places, (len(images), 2), generator=generator)
        planted, mask = plant(images, patterns[labels], corners)
        return planted, labels, mask


def class_patterns(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Different random patterns with half of the pixels white: (count, size, size) uint8, 0 or 255."""
    half_white = 255 * (torch.arange(size**2) < size**2 // 2).to(torch.uint8)
    patterns: dict[bytes, Tensor] = {}
    while len(patterns) < count:
        pattern = half_white[torch.randperm(size**2, generator=generator)]
        patterns[pattern.numpy().tobytes()] = pattern.view(size, size)
    return torch.stack(list(patterns.values()))


def plant(images: Tensor, patches: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Cover a square of each image, in all channels, with its patch.

    Shapes: (N, C, H, W) uint8, (N, s, s) uint8, top and left (N, 2) → images of the same shape and (N, H, W) bool,
    where the patch is.
    """
    size = patches.shape[-1]
    row, column = (torch.arange(side) - corners[:, i : i + 1] for i, side in enumerate(images.shape[-2:]))
    inside = [(place >= 0) & (place < size) for place in (row, column)]
    mask = inside[0][:, :, None] & inside[1][:, None, :]
    row, column = row.clamp(0, size - 1), column.clamp(0, size - 1)
    spread = patches[torch.arange(len(images))[:, None, None], row[:, :, None], column[:, None, :]]
    return torch.where(mask[:, None], spread[:, None], images), mask
