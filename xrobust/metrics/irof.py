"""IROF: whether the regions that an attribution calls important matter to the label."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.attributions import ImageMean
from xrobust.attributions.baselines import Baseline
from xrobust.errors import at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.changed_images import logits_of_each, of_label
from xrobust.metrics.pixel_flipping import flip_ranks
from xrobust.metrics.probe import Probe
from xrobust.metrics.regions import cell_means, grid_cells

MEAN = ImageMean()


class IROF(ExplanationMetric):
    """∫₀¹ 1 − min(1, p_y(x_s) / p_y(x)) ds, x_s without the best share s of the regions (Rieger & Hansen 2020).

    The regions are the cells of a grid, in the order of their mean relevance; removed ones are taken from a
    baseline, and the integral is a trapezoid rule over the regions. In [0, 1]; NaN for a zero map. The paper's ratio
    is not bounded: where the label had almost no probability, it would outweigh all other images.

    Args:
        grid: cells along each side, ≥ 1; the paper segments the image with SLIC.
        baseline: images → images without information.
    """

    higher_is_better, group, cost = True, "faithfulness", "expensive"

    def __init__(self, grid: int = 7, baseline: Baseline = MEAN):
        super().__init__()
        at_least("IROF", 1, grid=grid)
        self.grid, self.baseline = grid, baseline

    def per_sample(self, probe: Probe) -> Tensor:
        cells = grid_cells(probe.x.shape[-2:], self.grid).to(probe.x.device)
        relevance = cell_means(probe, cells)
        ranks = flip_ranks(relevance)[:, cells][:, None]
        absent = self.baseline(probe.x)
        copies = (absent.where(ranks < gone, probe.x) for gone in range(relevance.shape[1] + 1))
        log_p = of_label(logits_of_each(probe, copies).double().log_softmax(2), probe)
        lost = 1 - (log_p - log_p[0]).clamp(max=0).exp()
        area = torch.trapezoid(lost, dx=1 / relevance.shape[1], dim=0)
        return area.where(relevance.any(1) & relevance.isfinite().all(1), float("nan"))
