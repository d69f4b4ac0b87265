"""Sensitivity-n: whether relevance adds up over sets of every size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xrobust.attributions import Constant
from xrobust.attributions.baselines import Baseline
from xrobust.errors import UserError, at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.faithfulness_correlation import subset_correlation
from xrobust.metrics.perturbations import check_share, pixel_count
from xrobust.metrics.probe import Probe

BLACK = Constant(0.0)


class SensitivityN(ExplanationMetric):
    """The mean over n of corr_S(Σ_{i∈S} a_i, f_y(x) − f_y(x_S)), S random sets of n pixels (Ancona et al. 2018).

    In [−1, 1]. Input × gradient of a linear model has 1 for each n. NaN where for some n a side does not vary.

    Args:
        shares: each n as a share of the pixels, in (0, 1); at least one pixel, and not all.
        samples: sets that are drawn for each image and n, ≥ 2; the paper draws 100.
        baseline: images → images without information; the paper takes zeros.
    """

    higher_is_better, group, cost = True, "faithfulness", "expensive"

    def __init__(self, shares: Sequence[float] = (0.05, 0.2, 0.4, 0.8), samples: int = 25, baseline: Baseline = BLACK):
        super().__init__()
        if not shares:
            raise UserError("SensitivityN.shares must hold at least one share")
        for share in shares:
            check_share("SensitivityN.shares", share)
        at_least("SensitivityN", 2, samples=samples)
        self.shares, self.samples, self.baseline = tuple(shares), samples, baseline

    def per_sample(self, probe: Probe) -> Tensor:
        pixels, streams = probe.x.shape[-2] * probe.x.shape[-1], probe.streams("sensitivity_n")
        sizes = [pixel_count(share, pixels) for share in self.shares]
        return torch.stack(
            [subset_correlation(probe, size, self.samples, self.baseline, streams) for size in sizes]
        ).mean(0)
