"""TRADES."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.base import Loss
from xrobust.defenses.objectives import kl_divergence
from xrobust.errors import at_least


class TRADES(AdversarialTraining):
    """min_θ E [CE(f(x), y) + β · max_{δ ∈ B} KL(p(x) ‖ p(x + δ))] (Zhang et al. 2019).

    KL is summed over the classes and averaged over the batch; gradients flow through both of its sides.

    Args:
        attack: should maximise the same divergence (`conf/attack/pgd_kl.yaml`); its clean side is a constant that is
            computed once.
        beta: β ≥ 0, robustness against clean accuracy.
        batch_norm: "both", as published, in this order; or "clean" or "adversarial".
        label_smoothing: of the clean cross entropy.
    """

    def __init__(self, *, beta: float = 6.0, batch_norm: str = "both", **adversarial: Any):
        super().__init__(batch_norm=batch_norm, **adversarial)
        at_least("defense", 0.0, beta=beta)
        self.beta = beta

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        clean, adversarial = self.both_logits(x, x_adv)
        natural, divergence = self.cross_entropy(clean, y), kl_divergence(clean, adversarial).mean()
        logits = {"clean": clean, "adversarial": adversarial}
        return Loss(natural + self.beta * divergence, logits, {"cross_entropy": natural, "kl": divergence})
