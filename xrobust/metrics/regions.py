"""A grid of rectangular regions: superpixels that need no segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.metrics.probe import Probe, magnitude


def grid_cells(size: Sequence[int], grid: int) -> Tensor:
    """The cell of each pixel in a grid × grid partition of (H, W) pixels, counted row by row: (H, W) int64.

    Cells differ by at most one pixel in either side; a side shorter than the grid has as many cells as pixels.
    """
    row, column = (torch.arange(side) * min(grid, side) // side for side in size)
    return row[:, None] * min(grid, len(column)) + column


def cell_means(probe: Probe, cells: Tensor) -> Tensor:
    """The mean of Σ_c |a_c| over the pixels of each cell: (N, L) float64."""
    membership = F.one_hot(cells.flatten()).to(probe.x.device, torch.float64)
    return magnitude(probe.map).flatten(1).double() @ (membership / membership.sum(0))
