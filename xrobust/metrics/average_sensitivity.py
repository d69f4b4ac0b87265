"""How much an attribution moves when the image hardly does."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.errors import UserError
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe


class AverageSensitivity(ExplanationMetric):
    """(1/n) Σ_k ‖a(x + δ_k) − a(x)‖₂ / ‖a(x)‖₂, δ_k uniform in the threat model's ball (Bhatt et al. 2020).

    In [0, ∞); NaN for a zero map. The maximum of Yeh et al. 2019 grows with n; the mean does not.

    Args:
        samples: n ≥ 1.
    """

    higher_is_better, group, cost = False, "stability", "moderate"

    def __init__(self, samples: int = 10):
        super().__init__()
        if samples < 1:
            raise UserError(f"AverageSensitivity.samples must be at least 1, got {samples}")
        self.samples = samples

    def per_sample(self, probe: Probe) -> Tensor:
        streams = probe.streams("average_sensitivity")
        centre = probe.map.flatten(1).double()
        moved = torch.zeros_like(centre[:, 0])
        for _ in range(self.samples):
            point = probe.threat.random_start(probe.x, streams)
            moved += (probe.attribute(point).flatten(1).double() - centre).norm(dim=1)
        return moved / self.samples / centre.norm(dim=1)
