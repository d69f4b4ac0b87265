"""MART."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.base import Loss, at_least_float32
from xrobust.defenses.objectives import boosted_term, kl_divergence
from xrobust.errors import at_least


class MART(AdversarialTraining):
    """min_θ E [BCE(f(x*), y) + β · KL(p(x) ‖ p(x*)) · (1 − p_y(x))] (Wang et al. 2020).

    BCE(z, y) = CE(z, y) − log(1 − max_{k≠y} p_k(z)). The weight 1 − p_y(x) has gradients, too: misclassified images
    count more.

    Args:
        attack: PGD on the cross entropy in the paper.
        beta: the paper's λ ≥ 0.
        batch_norm: "both", as published; or "clean" or "adversarial".
        label_smoothing: of the cross entropy in BCE.
    """

    def __init__(self, *, beta: float = 5.0, batch_norm: str = "both", **adversarial: Any):
        super().__init__(batch_norm=batch_norm, **adversarial)
        at_least("defense", 0.0, beta=beta)
        self.beta = beta

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        clean, adversarial = self.both_logits(x, x_adv)
        boosted = self.cross_entropy(adversarial, y) + boosted_term(adversarial, y).mean()
        doubt = 1 - at_least_float32(clean).softmax(1).gather(1, y[:, None])[:, 0]
        divergence = (kl_divergence(clean, adversarial) * doubt).mean()
        logits = {"clean": clean, "adversarial": adversarial}
        terms = {"boosted_cross_entropy": boosted, "weighted_kl": divergence}
        return Loss(boosted + self.beta * divergence, logits, terms)
