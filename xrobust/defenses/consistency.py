"""Consistency regularisation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.base import Loss, mean_cross_entropy
from xrobust.defenses.objectives import kl_divergence
from xrobust.defenses.smoothed import SmoothedTraining, copied
from xrobust.errors import at_least
from xrobust.smoothing import mean_log_probability


class Consistency(SmoothedTraining):
    """min_θ E [(1/m) Σ_k CE(f(x + δ_k), y) + λ · (1/m) Σ_k KL(p̄ ‖ p_k) + η · H(p̄)] (Jeong & Shin 2020).

    p_k = softmax f(x + δ_k), p̄ their mean, H the entropy; gradients flow through all of them.

    Args:
        sigma: as in `SmoothedTraining`.
        copies: m ≥ 2.
        consistency: λ ≥ 0.
        entropy: η ≥ 0. With λ = η = 0 it is `GaussianSmoothing`.
    """

    def __init__(self, *, copies: int = 2, consistency: float = 5.0, entropy: float = 0.5, **smoothed: Any):
        super().__init__(copies=copies, **smoothed)
        at_least("defense", 2, copies=copies)
        at_least("defense", 0.0, consistency=consistency, entropy=entropy)
        self.consistency, self.entropy = consistency, entropy

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        logits = self.logits_under(x, self.noise(x))
        averaged = mean_log_probability(logits)
        natural = mean_cross_entropy(logits.flatten(0, 1), copied(y, self.copies))
        divergence = kl_divergence(averaged, logits).mean()
        entropy = -(averaged.exp() * averaged).sum(1).mean()
        value = natural + self.consistency * divergence + self.entropy * entropy
        terms = {"cross_entropy": natural, "consistency": divergence, "entropy": entropy}
        return Loss(value, {"smoothed": averaged}, terms)
