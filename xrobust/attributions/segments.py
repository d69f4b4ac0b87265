"""Superpixels without looking at the image: a grid of rectangles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.attributions.black_box import BlackBox
from xrobust.errors import UserError, at_least


@dataclass(frozen=True, kw_only=True)
class SegmentBlackBox(BlackBox):
    """The base of methods that explain the segments of a grid, which are kept or replaced by the baseline.

    A segment's value is spread evenly over its entries, so that they sum to it.

    Args:
        grid: g ≥ 2; the image has g × g segments, as equal as pixels allow.
        samples: how many choices of segments are tried for each image.
        baseline, seed: as in `BlackBox`.
    """

    grid: int = 7
    samples: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 2, grid=self.grid)
        at_least(type(self).__name__, 1, samples=self.samples)

    def segments(self, x: Tensor) -> Tensor:
        """The number of the segment, 0 … g² − 1, of each pixel: (H, W)."""
        if min(x.shape[-2:]) < self.grid:
            raise UserError(
                f"{type(self).__name__}.grid={self.grid} needs images of at least {self.grid} × {self.grid} pixels, "
                f"got {x.shape[-2]} × {x.shape[-1]}"
            )
        rows, columns = (torch.arange(size, device=x.device) * self.grid // size for size in x.shape[-2:])
        return rows[:, None] * self.grid + columns

    def spread(self, values: Tensor, x: Tensor) -> Tensor:
        """Each segment's value, evenly over its entries in all channels: (N, g²) → x's shape."""
        segments = self.segments(x)
        size = segments.flatten().bincount() * x.shape[1]
        return (values / size)[:, segments][:, None].expand_as(x).to(x.dtype).contiguous()

    def kept(self, chosen: Tensor, x: Tensor) -> Callable[[slice], Tensor]:
        """Choices of segments, (S, N, g²) or (S, 1, g²) bool, as pixels: versions → (S, N, H, W)."""
        segments = self.segments(x)
        return lambda versions: chosen[versions][..., segments]
