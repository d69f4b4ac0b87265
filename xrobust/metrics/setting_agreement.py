"""Whether the answer depends on the settings of the method."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.map_similarity import similarity_named
from xrobust.metrics.probe import Probe


class SettingAgreement(ExplanationMetric):
    """min_s sim(a(x), a_s(x)) over the settings s that the method itself names (`Attribution.settings`), its own too.

    Another baseline, twice the noise, half the steps: choices that a user makes without knowing which is right. In
    [−1, 1]; 1 for a method without settings; NaN where a map has no similarity to others (a constant one for
    Spearman's).

    Args:
        similarity: "spearman" or "ssim", of the pixels' Σ_c |a_c|.
    """

    higher_is_better, group, cost = True, "settings", "expensive"

    def __init__(self, similarity: str = "spearman"):
        super().__init__()
        self.similarity = similarity_named(similarity, "SettingAgreement.similarity")

    def per_sample(self, probe: Probe) -> Tensor:
        methods = [probe.method, *probe.method.settings().values()]
        return torch.stack([self.similarity(probe.map, probe.using(method).map) for method in methods]).amin(0)
