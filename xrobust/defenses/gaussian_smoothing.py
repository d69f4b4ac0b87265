"""Training under Gaussian noise."""

from __future__ import annotations

from torch import Tensor

from xrobust.defenses.base import Loss, mean_cross_entropy
from xrobust.defenses.smoothed import SmoothedTraining, copied
from xrobust.smoothing import mean_log_probability


class GaussianSmoothing(SmoothedTraining):
    """min_θ E (1/m) Σ_k CE(f(x + δ_k), y), δ_k ~ N(0, σ²I) (Cohen et al. 2019, with m = 1).

    Args:
        sigma, copies: as in `SmoothedTraining`.
    """

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        logits = self.logits_under(x, self.noise(x))
        loss = mean_cross_entropy(logits.flatten(0, 1), copied(y, self.copies))
        return Loss(loss, {"smoothed": mean_log_probability(logits)})
