"""Training without an adversary."""

from __future__ import annotations

from torch import Tensor

from xrobust.defenses.base import Loss, RobustClassifier, mean_cross_entropy


class StandardTraining(RobustClassifier):
    """min_θ E CE(f(x), y): empirical risk minimisation, the baseline of every comparison."""

    selection = "val/clean_accuracy"

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        logits = self.model(x)
        return Loss(mean_cross_entropy(logits, y), {"clean": logits})
