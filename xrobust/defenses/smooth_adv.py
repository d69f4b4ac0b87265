"""SmoothAdv: adversarial training of the smoothed classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.attacks import Attack
from xrobust.defenses.base import Loss, mean_cross_entropy
from xrobust.defenses.smoothed import SmoothedTraining, copied
from xrobust.smoothing import UnderNoise, mean_log_probability


class SmoothAdv(SmoothedTraining):
    """min_θ E (1/m) Σ_k CE(f(x* + δ_k), y), x* = argmax −log (1/m) Σ_k softmax f(x + δ_k)_y (Salman et al. 2019).

    The draws of noise are the same in all steps of the attack and in the training pass.

    Args:
        attack: the training attack, of the mean of the softmax outputs; L2 PGD in the paper. It must keep the batch
            together (PGD: keep=last).
        sigma, copies: as in `SmoothedTraining`. With ε = 0 it is `GaussianSmoothing`.
    """

    attack: Attack

    def __init__(self, *, attack: Attack, copies: int = 4, **smoothed: Any):
        super().__init__(copies=copies, **smoothed)
        self.attack = attack

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        noise = self.noise(x)
        x_adv = self.attack(UnderNoise(self.model, noise), x, y, generator=self.generator)
        logits = self.logits_under(x_adv.to(x.dtype), noise)
        loss = mean_cross_entropy(logits.flatten(0, 1), copied(y, self.copies))
        return Loss(loss, {"smoothed": mean_log_probability(logits)}, x_adv=x_adv)
