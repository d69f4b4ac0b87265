"""Over how many pixels an attribution is spread."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude


def entropy(values: Tensor) -> Tensor:
    """−Σ_i p_i ln p_i with p = v/Σv, of nonnegative values, in nats: (N, d) → (N,).

    In [0, ln d]; exp of it is an effective number of entries; NaN if all are zero.
    """
    values = values.double()
    return torch.special.entr(values / values.sum(1, keepdim=True)).sum(1)


class Entropy(ExplanationMetric):
    """The entropy of the pixels' shares of Σ|a|: simple explanations are low (Bhatt et al. 2020)."""

    higher_is_better, group, cost = False, "complexity", "cheap"

    def per_sample(self, probe: Probe) -> Tensor:
        return entropy(magnitude(probe.map).flatten(1))
