"""How many pixels an attribution calls relevant."""

from __future__ import annotations

from torch import Tensor

from xrobust.errors import UserError
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude


def effective_complexity(values: Tensor, threshold: float) -> Tensor:
    """|{i : v_i > τ·max v}| / d of nonnegative values: (N, d) → (N,).

    In [1/d, 1], free of scale; NaN if all are zero or any is not finite.
    """
    largest = values.amax(1, keepdim=True)
    share = (values > threshold * largest).double().mean(1)
    return share.where((largest[:, 0] > 0) & values.isfinite().all(1), float("nan"))


class EffectiveComplexity(ExplanationMetric):
    """The share of the pixels whose magnitude Σ_c |a_c| is above τ times the largest (after Nguyen & Martínez 2020).

    Args:
        threshold: τ in [0, 1).
    """

    higher_is_better, group, cost = False, "complexity", "cheap"

    def __init__(self, threshold: float = 0.1):
        super().__init__()
        if not 0 <= threshold < 1:
            raise UserError(f"EffectiveComplexity.threshold must be at least 0 and below 1, got {threshold}")
        self.threshold = threshold

    def per_sample(self, probe: Probe) -> Tensor:
        return effective_complexity(magnitude(probe.map).flatten(1), self.threshold)
