"""Adversarial training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xrobust.defenses.adversarial import AdversarialTraining, check_share
from xrobust.defenses.base import Loss


class PGDAdversarialTraining(AdversarialTraining):
    """min_θ E max_{δ ∈ B} CE(f(x + δ), y), with any attack as the inner maximisation (Madry et al. 2018).

    Args:
        attack: the training attack.
        clean_share: the share of each batch that is left as it is (Kurakin et al. 2017: 1/2); the others are attacked.
        batch_norm: "adversarial" (Madry et al., Rice et al. 2020: the training pass is the only one), "clean" (a
            further pass over the clean images updates the statistics and the training pass does not), or "both".
            Without batch norm there is no further pass.
        label_smoothing: as in `AdversarialTraining`.
    """

    def __init__(self, *, clean_share: float = 0.0, **adversarial: Any):
        super().__init__(**adversarial)
        self.clean_share = check_share("clean_share", clean_share)

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        clean = round(self.clean_share * len(x))  # batches are shuffled, so the first ones are any
        if clean == len(x):
            return x
        return torch.cat([x[:clean], self.attacked(x[clean:], y[clean:])])

    def attacked(self, x: Tensor, y: Tensor) -> Tensor:
        """The adversarial examples of those that are not left as they are."""
        return super().perturb(x, y)

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        logits = self.adversarial_logits(x, x_adv)
        return Loss(self.cross_entropy(logits, y), {"mixed" if self.clean_share else "adversarial": logits})
