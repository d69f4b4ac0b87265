"""Adversarial training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.defenses.base import Loss, RobustClassifier, mean_cross_entropy
from xrobust.defenses.batch_norm import check_policy, frozen_statistics, has_batch_norm


class PGDAdversarialTraining(RobustClassifier):
    """min_θ E max_{δ ∈ B} CE(f(x + δ), y), with any attack as the inner maximisation (Madry et al. 2018).

    Args:
        attack: the training attack; it sees the model in the mode that it asks for (eval unless stated) and never
            touches batch-norm statistics.
        batch_norm: which images update the running statistics of batch norm: "adversarial" (Madry et al., Rice et
            al. 2020: the training pass is the only one), "clean" (a further pass over the clean images updates
            them and the adversarial pass does not), or "both". Without batch norm there is no further pass.
    """

    def __init__(self, *, attack: Attack, batch_norm: str = "adversarial", **base: Any):
        super().__init__(**base)
        self.attack: Attack = attack
        self.batch_norm = check_policy(batch_norm)
        self._clean_pass = batch_norm != "adversarial" and has_batch_norm(self.model)

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        x_adv = self.attack(self.model, x, y, generator=self.generator)
        if self._clean_pass:
            with torch.no_grad():
                self.model(x)
        with frozen_statistics(self.model, frozen=self.batch_norm == "clean"):
            logits = self.model(x_adv)
        return Loss(mean_cross_entropy(logits, y), {"adversarial": logits})
