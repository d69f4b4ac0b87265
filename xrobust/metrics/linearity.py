"""Linearity: whether the explanation of a sum is the sum of the explanations."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe
from xrobust.metrics.random_logit import other_class


class Linearity(ExplanationMetric):
    """‖a(α·f_y + β·f_j) − α·a(f_y) − β·a(f_j)‖₂ / (‖α·a(f_y)‖₂ + ‖β·a(f_j)‖₂), j a random other class.

    The axiom of Sundararajan et al. 2017, with two logits of one network as the functions. In [0, ∞): 0 up to
    rounding for a linear method, ½ for one that ignores the target (for α = −β). NaN where both maps are zero, and
    for a model with one class.

    Args:
        alpha, beta: α and β; 1 and −1 explain the margin of the label over j.
    """

    higher_is_better, group, cost = False, "axioms", "moderate"

    def __init__(self, alpha: float = 1.0, beta: float = -1.0):
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def per_sample(self, probe: Probe) -> Tensor:
        rival = other_class(probe, "linearity")

        def combination(logits: Tensor) -> Tensor:
            own, other = (logits.gather(1, label.clone()[:, None])[:, 0] for label in (probe.y, rival))
            return self.alpha * own + self.beta * other

        found = probe.method(probe.model, probe.x, combination, generator=probe.streams("attribution"))
        own, other = self.alpha * probe.map, self.beta * replace(probe, y=rival, shared={}).map
        gap, size, other_size = (each.flatten(1).double().norm(dim=1) for each in (found - own - other, own, other))
        size = size + other_size
        return (gap / size).where((size > 0) & (rival != probe.y), float("nan"))
