"""A digit and a block that means nothing, one above the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.data.arrays import Arrays
from xrobust.data.base import ImageDataModule
from xrobust.errors import UserError, at_least
from xrobust.randomness import mix


@dataclass(kw_only=True, eq=False)
class BlockMNIST(ImageDataModule):
    """The digits of another set, each above or below a null block that is the same in all images (Shah et al. 2021).

    The label is the digit's, so the digit's block is the ground truth: a quarter of the image. The paper's images are
    twice as high as wide; here the two blocks stand in the middle of a square, between black margins. Digits of
    another size than half of `image_size` are resized (area).

    Args:
        source: the digits.
        layout_seed: which of the two blocks is on top in each image.
    """

    source: ImageDataModule
    layout_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("data", 0, layout_seed=self.layout_seed)
        if self.image_size % 2:
            raise UserError(f"data.image_size={self.image_size} must be even: it is the height of two equal blocks")

    def load(self) -> Arrays:
        digits = self.source.load()
        x_train, mask_train = self._stack(digits.x_train, 0)
        x_test, mask_test = self._stack(digits.x_test, 1)
        return Arrays(x_train, digits.y_train, x_test, digits.y_test, digits.class_names, mask_train, mask_test)

    def _stack(self, digits: Tensor, part: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(mix(self.layout_seed, part))
        below = torch.randint(2, (len(digits),), generator=generator)
        return stack_blocks(digits, below, self.image_size // 2)


def stack_blocks(digits: Tensor, below: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Put each digit above (0) or below (1) a null block.

    Shapes: (N, C, h, w) uint8, (N,) int64, the side b of a block → images (N, C, 2b, 2b) uint8 and the digits' blocks
    (N, 2b, 2b) bool.
    """
    if digits.shape[-2:] != (side, side):
        digits = F.interpolate(digits.float(), (side, side), mode="area").round().to(torch.uint8)
    count, channels = digits.shape[:2]
    images = torch.zeros(count, channels, 2 * side, 2 * side, dtype=torch.uint8)
    masks = torch.zeros(count, 2 * side, 2 * side, dtype=torch.bool)
    middle, every = slice(side // 2, side // 2 + side), torch.arange(count)
    blocks = images[..., middle].unflatten(2, (2, side))  # views: writing into them writes into the images
    blocks[every, :, below] = digits
    blocks[every, :, 1 - below] = null_block(side)
    masks[..., middle].unflatten(1, (2, side))[every, below] = True
    return images, masks


def null_block(side: int) -> Tensor:
    """A square with its falling diagonal, white on black, of a digit's size and stroke: (side, side) uint8."""
    stroke, margin = max(1, side // 14), side // 7
    place = torch.arange(side) - margin
    inner = side - 2 * margin
    to_border = torch.minimum(place, inner - 1 - place)  # negative outside the square
    to_border = torch.minimum(to_border[:, None], to_border)
    diagonal = (place[:, None] - place).abs() < stroke
    drawn = (to_border >= 0) & (diagonal | (to_border < stroke))
    return 255 * drawn.to(torch.uint8)
