"""Random crops, flips and cutouts of whole batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.errors import at_least, one_of

CROP_MODES = ("zeros", "edge")
PARTS = 1 << 20


def crop(images: Tensor, corners: Tensor, padding: int, mode: str) -> Tensor:
    """Pad every image by p pixels on each side and cut a window of the old size out of it, at its own corner.

    Args:
        images: (N, C, H, W).
        corners: (N, 2) integers in 0 ... 2p, the top and left of each window; (p, p) is the image itself.
        padding: p.
        mode: what the padding holds, "zeros" or "edge" (the nearest pixel).

    Returns:
        (N, C, H, W), of the images' dtype.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, 4 * (padding,)) if mode == "zeros" else _pad_edge(images, padding)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (N, C, 2p + 1, 2p + 1, H, W)
    return windows[torch.arange(count, device=images.device), :, corners[:, 0], corners[:, 1]]


def _pad_edge(images: Tensor, padding: int) -> Tensor:
    """Replication padding, which `F.pad` lacks for uint8."""
    for dim in (2, 3):
        first, last = images.narrow(dim, 0, 1), images.narrow(dim, -1, 1)
        images = torch.cat(padding * [first] + [images] + padding * [last], dim)
    return images


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen images left to right: (N, C, H, W), (N,) bool → (N, C, H, W)."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def cut_out(images: Tensor, centres: Tensor, size: int) -> Tensor:
    """Make a square black, as far as it lies in the image.

    Shapes: (N, C, H, W), row and column (N, 2), the side s → (N, C, H, W); of s pixels, s // 2 lie before the centre.
    """
    first = (centres - size // 2)[..., None]
    rows, columns = (torch.arange(side, device=images.device) - first[:, i] for i, side in enumerate(images.shape[2:]))
    inside = [(place >= 0) & (place < size) for place in (rows, columns)]
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)


@dataclass(frozen=True)
class Augmentation:
    """A random crop after padding, then a horizontal flip of half of the images, then a cutout.

    Args:
        crop_padding: p ≥ 0 pixels on every side; 0 crops nothing.
        crop_mode: the padding, "zeros" or "edge".
        flip: whether to flip.
        cutout: side s ≥ 0 of the square around a random pixel that becomes black (DeVries & Taylor 2017).
    """

    crop_padding: int = 0
    crop_mode: str = "zeros"
    flip: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        at_least("data", 0, crop_padding=self.crop_padding, cutout=self.cutout)
        if self.crop_mode not in CROP_MODES:
            raise one_of("data.crop_mode", self.crop_mode, CROP_MODES)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """What happens to each of `count` images: int64, the crop's top and left, flipped, the cutout's centre.

        The centre is in 1/`PARTS` of the image's height and width, which nobody knows here.
        """
        corners = torch.randint(2 * self.crop_padding + 1, (count, 2), generator=generator)
        flipped = torch.randint(2, (count, 1), generator=generator)
        centres = torch.randint(PARTS, (count, 2), generator=generator)
        return torch.cat([corners, flipped, centres], 1)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """The augmented images: (N, C, H, W), (N, 5) → (N, C, H, W), of the images' dtype."""
        if self.crop_padding:
            images = crop(images, draws[:, :2], self.crop_padding, self.crop_mode)
        if self.flip:
            images = flip(images, draws[:, 2].bool())
        if self.cutout:
            size = torch.tensor(images.shape[2:], device=images.device)
            images = cut_out(images, draws[:, 3:] * size // PARTS, self.cutout)
        return images
