"""What methods that train on adversarial examples share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.defenses.base import Loss, RobustClassifier, mean_cross_entropy
from xrobust.defenses.batch_norm import check_policy, frozen_statistics, has_batch_norm
from xrobust.errors import UserError


class AdversarialTraining(RobustClassifier):
    """First the attack, then a loss on what it found: a method is a subclass that writes `loss_on`.

    Args:
        attack: the training attack; it sees the model in the mode that it asks for and never touches batch-norm
            statistics.
        batch_norm: which images update the running statistics of batch norm, "adversarial", "clean" or "both".
        label_smoothing: s in [0, 1]; cross entropies are taken against (1 − s) · one-hot + s/K (Szegedy et al. 2016).
    """

    attack: Attack

    def __init__(self, *, attack: Attack, batch_norm: str = "adversarial", label_smoothing: float = 0.0, **base: Any):
        super().__init__(**base)
        self.attack = attack
        self.batch_norm = check_policy(batch_norm)
        self.label_smoothing = check_share("label_smoothing", label_smoothing)
        self._clean_pass = batch_norm != "adversarial" and has_batch_norm(self.model)

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        return self.loss_at(x, self.perturb(x, y), y)

    def loss_at(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        """`loss_on`, together with the examples that it is on."""
        return replace(self.loss_on(x, x_adv, y), x_adv=x_adv)

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        """The adversarial examples of a batch."""
        return self.attack(self.model, x, y, generator=self.generator)

    @abstractmethod
    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        """The loss of the method, given what `perturb` found."""

    def adversarial_logits(self, x: Tensor, x_adv: Tensor) -> Tensor:
        """f(x_adv), for methods that do not need f(x): where batch norm follows the clean images, a further pass
        over them moves the statistics."""
        if self._clean_pass:
            with torch.no_grad():
                self.model(x)
        with frozen_statistics(self.model, frozen=self.batch_norm == "clean"):
            return self.model(x_adv)

    def both_logits(self, x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and f(x_adv), in one pass each; statistics move in this order."""
        with frozen_statistics(self.model, frozen=self.batch_norm == "adversarial"):
            clean = self.model(x)
        with frozen_statistics(self.model, frozen=self.batch_norm == "clean"):
            return clean, self.model(x_adv)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """CE against the smoothed labels, averaged over the batch."""
        return mean_cross_entropy(logits, y, self.label_smoothing)


def check_share(name: str, value: float) -> float:
    """The value, if it lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"defense.{name} must lie in [0, 1], got {value}")
    return value
