"""Gradient alignment."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.base import Loss
from xrobust.defenses.batch_norm import frozen_statistics
from xrobust.defenses.second_order import refuse_compiled
from xrobust.errors import at_least
from xrobust.regularizers.grad_align import misalignment


class GradAlign(AdversarialTraining):
    """min_θ E [CE(f(x*), y) + λ (1 − cos(∇ₓℓ(x), ∇ₓℓ(x + η)))], η uniform in B (Andriushchenko & Flammarion 2020).

    Where the gradient turns within the ball, one step of FGSM finds nothing and training against it collapses; the
    second term keeps the loss locally linear. A sample whose gradient vanishes pays nothing for it.

    Args:
        attack: FGSM in the paper.
        weight: λ ≥ 0.
        detach_clean: let gradients flow through ∇ₓℓ(x + η) only, as the published code does, instead of through both.
        batch_norm: which images update the statistics; the passes at x and x + η for the cosine normalise by their
            batch and never do.
        label_smoothing: of the cross entropy at x*.

    Raises:
        UserError: for a compiled model.
    """

    def __init__(self, *, weight: float = 0.2, detach_clean: bool = False, **adversarial: Any):
        super().__init__(**adversarial)
        at_least("defense", 0.0, weight=weight)
        self.weight = weight
        self.detach_clean = detach_clean
        refuse_compiled(self)

    def on_fit_start(self) -> None:
        refuse_compiled(self)

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        logits = self.adversarial_logits(x, x_adv)
        entropy = self.cross_entropy(logits, y)
        noisy = self.attack.threat.random_start(x, self.generator)
        with frozen_statistics(self.model):
            penalty = misalignment(self.model, x, noisy, y, detach_clean=self.detach_clean).mean()
        terms = {"cross_entropy": entropy, "misalignment": penalty}
        return Loss(entropy + self.weight * penalty, {"adversarial": logits}, terms)
