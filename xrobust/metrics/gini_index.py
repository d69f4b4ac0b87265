"""How concentrated an attribution is."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude


def gini_index(values: Tensor) -> Tensor:
    """Σ_i (2i − d − 1)·v_(i) / (d·Σ_i v_i) of nonnegative values, v_(1) ≤ … ≤ v_(d): (N, d) → (N,).

    In [0, 1 − 1/d]: 0 if all are equal, the maximum if one has everything; NaN if all are zero (Hurley &
    Rickard 2009).
    """
    size = values.shape[1]
    ascending = values.double().sort(1).values
    weights = 2 * torch.arange(1, size + 1, device=values.device) - size - 1
    return (weights * ascending).sum(1) / (size * ascending.sum(1))


class GiniIndex(ExplanationMetric):
    """The Gini index of the magnitudes Σ_c |a_c|: sparse explanations are high (Chalasani et al. 2020)."""

    higher_is_better, group, cost = True, "complexity", "cheap"

    def per_sample(self, probe: Probe) -> Tensor:
        return gini_index(magnitude(probe.map).flatten(1))
