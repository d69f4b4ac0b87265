"""Occlusion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.baselines import baseline_images
from xrobust.attributions.black_box import BlackBox, scores_at
from xrobust.attributions.maps import over_channels
from xrobust.errors import UserError, at_least
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class Occlusion(BlackBox):
    """a = the mean, over the patches P that cover a pixel, of s(x) − s(x with x' in P) (Zeiler & Fergus 2014).

    Patches start at every `stride`-th pixel until the far border is covered, where they are cut off. All channels
    are covered at once, and each has an equal share of the pixel's value. One forward pass for each patch.

    Args:
        patch: side of the square patch in pixels, ≥ 1.
        stride: 1 ≤ stride ≤ patch, so that no pixel is left out.
        baseline, seed: as in `BlackBox`.
    """

    patch: int = 4
    stride: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("Occlusion", 1, patch=self.patch, stride=self.stride)
        if self.stride > self.patch:
            raise UserError(f"Occlusion.stride must be at most the patch of {self.patch}, got {self.stride}")

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        rows, columns = (self.windows(size, x.device) for size in x.shape[-2:])
        windows = (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)
        covered = self.scores(
            model,
            x,
            baseline_images(self.baseline, x, generator),
            score,
            lambda part: ~windows[part, None],
            len(windows),
        )
        drop = scores_at(model, x[None], score, self.batch_size) - covered
        share = windows.to(x.dtype) / windows.sum(0)
        return over_channels(torch.einsum("pn,phw->nhw", drop, share), x)

    def windows(self, size: int, device: torch.device) -> Tensor:
        """Which of `size` positions each window covers along one side: (windows, size) bool."""
        start = torch.arange(0, max(1, size - self.patch + self.stride), self.stride, device=device)[:, None]
        position = torch.arange(size, device=device)
        return (position >= start) & (position < start + self.patch)
