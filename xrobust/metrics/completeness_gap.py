"""Completeness: whether relevance adds up to what the image changed."""

from __future__ import annotations

from torch import Tensor

from xrobust.attributions import Constant
from xrobust.attributions.baselines import Baseline
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.changed_images import label_drops
from xrobust.metrics.probe import Probe

BLACK = Constant(0.0)


class CompletenessGap(ExplanationMetric):
    """|Σ_i a_i − (f_y(x) − f_y(x'))| / |f_y(x) − f_y(x')| (Sundararajan et al. 2017, completeness).

    In [0, ∞): 0 for a complete method with the same baseline, 1 for a zero map. NaN where the baseline has the
    image's logit.

    Args:
        baseline: images → x', the one that the method under test compares with.
    """

    higher_is_better, group, cost = False, "axioms", "cheap"

    def __init__(self, baseline: Baseline = BLACK):
        super().__init__()
        self.baseline = baseline

    def per_sample(self, probe: Probe) -> Tensor:
        expected = label_drops(probe, [self.baseline(probe.x)])[:, 0]
        gap = (probe.map.flatten(1).double().sum(1) - expected).abs() / expected.abs()
        return gap.where(expected != 0, float("nan"))
