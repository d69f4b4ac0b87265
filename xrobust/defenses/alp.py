"""Adversarial logit pairing."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.adversarial import AdversarialTraining, check_share
from xrobust.defenses.base import Loss, at_least_float32
from xrobust.defenses.objectives import squared_distance
from xrobust.errors import at_least


class ALP(AdversarialTraining):
    """min_θ E [(1 − c) CE(f(x*), y) + c CE(f(x), y) + λ ‖f(x) − f(x*)‖²] (Kannan et al. 2018).

    The squared distance of the logits is summed over the classes and averaged over the batch.

    Args:
        attack: the training attack.
        weight: λ ≥ 0.
        clean_weight: c in [0, 1]; 1/2 is the paper's pairing on mixed batches.
        batch_norm: "both", as published; or "clean" or "adversarial".
        label_smoothing: of the cross entropies.
    """

    def __init__(self, *, weight: float = 0.5, clean_weight: float = 0.0, batch_norm: str = "both", **adversarial: Any):
        super().__init__(batch_norm=batch_norm, **adversarial)
        at_least("defense", 0.0, weight=weight)
        self.weight = weight
        self.clean_weight = check_share("clean_weight", clean_weight)

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        clean, adversarial = self.both_logits(x, x_adv)
        entropy = (1 - self.clean_weight) * self.cross_entropy(adversarial, y)
        entropy = entropy + self.clean_weight * self.cross_entropy(clean, y)
        pairing = squared_distance(at_least_float32(clean), at_least_float32(adversarial)).mean()
        logits = {"clean": clean, "adversarial": adversarial}
        return Loss(entropy + self.weight * pairing, logits, {"cross_entropy": entropy, "pairing": pairing})
