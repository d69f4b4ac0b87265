"""Whether an attribution finds the label's image in a mosaic of images of different classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.errors import UserError, at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.localisation import relevance
from xrobust.metrics.probe import Probe
from xrobust.metrics.relevance_mass import relevance_mass
from xrobust.randomness import SampleStreams, uniform_like


def draw_company(labels: Tensor, pool_labels: Tensor, count: int, streams: SampleStreams) -> tuple[Tensor, Tensor]:
    """For each sample a place among `count` + 1, and `count` positions in the pool, each of another class.

    Shapes: (N,), (M,) → (N,) and (N, count). All places, classes and images of a class are equally likely.
    """
    classes, sizes = pool_labels.unique(return_counts=True)
    by_class, starts = pool_labels.argsort(stable=True), sizes.cumsum(0) - sizes
    like = torch.empty(len(labels), len(classes) + count + 1, device=labels.device)
    lots, picks, place = uniform_like(like, streams).double().split([len(classes), count, 1], 1)
    chosen = lots.masked_fill(classes == labels[:, None], 1).argsort(1)[:, :count]
    partners = by_class[starts[chosen] + (picks * sizes[chosen]).long()]
    return (place[:, 0] * (count + 1)).long(), partners


def mosaics(x: Tensor, pool: Tensor, partners: Tensor, place: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Each image at its place among its partners from the pool, in a mosaic of the size of one image.

    Tiles are shrunk by averaging over areas; where `side` does not divide the image's sides they differ by a pixel.

    Shapes: (N, C, H, W), (M, C, H, W), (N, side² − 1), (N,) → mosaics (N, C, H, W) and each image's own tile (N, H, W)
    bool.
    """
    mosaic, own = torch.empty_like(x), torch.zeros_like(x[:, 0], dtype=torch.bool)
    rows, columns = ([slice(i * size // side, (i + 1) * size // side) for i in range(side)] for size in x.shape[-2:])
    for tile in range(side**2):
        row, column = rows[tile // side], columns[tile % side]
        mine = place == tile
        turn = (tile - (place < tile).long()).clamp(max=side**2 - 2)  # of the partners, who leave the place free
        other = pool[partners.gather(1, turn[:, None])[:, 0]]
        shown = torch.where(mine.view(-1, 1, 1, 1), x, other)
        mosaic[:, :, row, column] = F.adaptive_avg_pool2d(shown, (row.stop - row.start, column.stop - column.start))
        own[:, row, column] = mine.view(-1, 1, 1)
    return mosaic, own


class GridPG(ExplanationMetric):
    """Σ_{own tile} r / Σ r of the map of a mosaic, for the label of one of its tiles (Böhle et al. 2021).

    Each sample stands at a random place among side² − 1 images of other classes, all different, from the probe's pool.
    Undefined for a map without relevance. The published game tiles whole images, for models that take any size; here
    the mosaic has the size of one image, so that any model can be asked, and its tiles are small.

    Args:
        side: tiles in a row, ≥ 2.
        signed: whether r = max(Σ_c a_c, 0), as published; otherwise r = Σ_c |a_c|.
    """

    higher_is_better, group, cost = True, "localisation", "moderate"
    needs = frozenset({"pool"})

    def __init__(self, side: int = 2, signed: bool = True):
        super().__init__()
        at_least("GridPG", 2, side=side)
        self.side, self.signed = side, signed

    def lacks(self, probe: Probe) -> str | None:
        classes = self.side**2 if probe.pool is None else len(probe.pool[1].unique())
        if classes < self.side**2:
            return f"images of {self.side**2} classes, of which the probe's pool has {classes}"
        height, width = probe.x.shape[-2:]
        if min(height, width) < self.side:
            return f"images of {self.side} × {self.side} pixels or more instead of {height} × {width}"
        return super().lacks(probe)

    def per_sample(self, probe: Probe) -> Tensor:
        images, labels = self._pool(probe)
        place, partners = draw_company(probe.y, labels, self.side**2 - 1, probe.streams("mosaic"))
        mosaic, own = mosaics(probe.x, images, partners, place, self.side)
        return relevance_mass(relevance(probe.attribute(mosaic), self.signed), own)

    def _pool(self, probe: Probe) -> tuple[Tensor, Tensor]:
        if probe.pool is None:
            raise UserError("GridPG makes mosaics of several images, but the probe has no pool to draw them from")
        missing = self.lacks(probe)
        if missing:
            raise UserError(f"GridPG.side={self.side} needs {missing}")
        images, labels = (part.to(probe.x.device) for part in probe.pool)
        return images.to(probe.x.dtype), labels
