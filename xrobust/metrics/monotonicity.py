"""Whether more relevance means more effect, region by region."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.errors import at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.changed_images import label_drops
from xrobust.metrics.probe import Probe
from xrobust.metrics.regions import cell_means, grid_cells
from xrobust.metrics.spearman import spearman_correlation
from xrobust.randomness import uniform_like


class Monotonicity(ExplanationMetric):
    """Spearman's correlation of a region's relevance and its effect (Nguyen & Martínez 2020).

    The effect of region r is E[(f_y(x) − f_y(x with r redrawn))²], pixels redrawn from U(0, 1); its relevance the
    mean of Σ_c |a_c| in it. The regions are the cells of a grid; the paper takes single features. In [−1, 1]; NaN
    where all regions have the same relevance or the same effect.

    Args:
        grid: cells along each side, ≥ 2.
        samples: draws for each region, ≥ 1.
    """

    higher_is_better, group, cost = True, "faithfulness", "expensive"

    def __init__(self, grid: int = 7, samples: int = 2):
        super().__init__()
        at_least("Monotonicity", 2, grid=grid)
        at_least("Monotonicity", 1, samples=samples)
        self.grid, self.samples = grid, samples

    def per_sample(self, probe: Probe) -> Tensor:
        cells = grid_cells(probe.x.shape[-2:], self.grid).to(probe.x.device)
        relevance, streams = cell_means(probe, cells), probe.streams("monotonicity")
        effect = torch.zeros_like(relevance)
        for _ in range(self.samples):
            redrawn = uniform_like(probe.x, streams).to(probe.x.dtype)
            copies = (redrawn.where(cells == cell, probe.x) for cell in range(relevance.shape[1]))
            effect += label_drops(probe, copies).square()
        return spearman_correlation(relevance, effect)
