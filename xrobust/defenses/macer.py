"""MACER: the certified radius as a loss."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from xrobust.defenses.adversarial import check_share
from xrobust.defenses.base import Loss
from xrobust.defenses.smoothed import SmoothedTraining
from xrobust.errors import at_least
from xrobust.frame import hard_labels
from xrobust.smoothing import mean_log_probability


class MACER(SmoothedTraining):
    """min_θ E [−log p̄_y + λ · (σ/2) · [γ − (Φ⁻¹(q̄_y) − Φ⁻¹(q̄_2))]₊ · 1{q̄_y is the largest}] (Zhai et al. 2020).

    p̄ is the mean of softmax f(x + δ_k) over m draws, q̄ that of softmax β·f(x + δ_k), q̄_2 the runner-up. σ/2 times the
    difference is the radius that the smoothed classifier would have if the means were its probabilities.

    Args:
        sigma: as in `SmoothedTraining`.
        copies: m ≥ 1.
        weight: λ ≥ 0. With λ = 0 and m = 1 it is `GaussianSmoothing`.
        margin: γ ≥ 0, the difference beyond which nothing is gained.
        inverse_temperature: β > 0.
        deferred: the share of the run before λ sets in.
    """

    def __init__(
        self,
        *,
        copies: int = 16,
        weight: float = 16.0,
        margin: float = 8.0,
        inverse_temperature: float = 16.0,
        deferred: float = 0.0,
        **smoothed: Any,
    ):
        super().__init__(copies=copies, **smoothed)
        at_least("defense", 0.0, weight=weight, margin=margin, inverse_temperature=inverse_temperature)
        self.weight, self.margin, self.inverse_temperature = weight, margin, inverse_temperature
        self.deferred = check_share("deferred", deferred)

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        logits = self.logits_under(x, self.noise(x))
        averaged = mean_log_probability(logits)
        natural = -averaged.gather(1, y[:, None]).mean() if y.dim() == 1 else -(y * averaged).sum(1).mean()
        sharp = mean_log_probability(self.inverse_temperature * logits)
        hinge = self.sigma / 2 * radius_hinge(sharp, hard_labels(y), self.margin).mean()
        weight = self.weight if self.progress >= self.deferred else 0.0
        return Loss(
            natural + weight * hinge.to(natural.dtype),
            {"smoothed": averaged},
            {"cross_entropy": natural, "radius_hinge": hinge},
        )


def radius_hinge(log_probability: Tensor, y: Tensor, margin: float) -> Tensor:
    """[γ − (Φ⁻¹(q_y) − Φ⁻¹(q_2))]₊ where q_y is the largest, 0 elsewhere: (N, K), (N,) → (N,) float64.

    In float64, where Φ⁻¹ is finite up to 1 − 10⁻¹⁶; beyond, the hinge is 0 and so is its gradient.
    """
    top, classes = log_probability.double().topk(2, dim=1)
    first, second = top.exp().unbind(1)
    with torch.no_grad():
        gap = torch.special.ndtri(first) - torch.special.ndtri(second)
        active = (classes[:, 0] == y) & (gap < margin)  # False for a gap of ∞ or NaN
    first, second = (torch.where(active, value, 0.5) for value in (first, second))  # no gradient from elsewhere
    return torch.where(active, margin - (_quantile(first) - _quantile(second)), 0.0)


def _quantile(probability: Tensor) -> Tensor:
    """Φ⁻¹, differentiable."""
    return math.sqrt(2) * torch.erfinv(2 * probability - 1)
