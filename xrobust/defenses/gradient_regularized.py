"""Cross entropy and penalties on gradients."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.base import Loss
from xrobust.errors import one_of

IMAGES = ("clean", "adversarial")


class GradientRegularized(AdversarialTraining):
    """min_θ E [CE(f(x), y) + Σ_i λ_i R_i], or with CE(f(x*), y): the loss to which regularisers are added.

    The regularisers are chosen by `regularizers=[…]`, as for every other method, and are not arguments of this class.

    Args:
        attack: makes x*; with clean images it is only the radius that schedules of ε move.
        images: of the cross entropy, "clean" or "adversarial".
        batch_norm, label_smoothing: as in `AdversarialTraining`.
    """

    def __init__(self, *, images: str = "clean", **adversarial: Any):
        super().__init__(**adversarial)
        if images not in IMAGES:
            raise one_of("defense.images", images, IMAGES)
        self.images = images
        self.attacks_images = images == "adversarial"

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        return x if self.images == "clean" else super().perturb(x, y)

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        logits = self.model(x) if self.images == "clean" else self.adversarial_logits(x, x_adv)
        return Loss(self.cross_entropy(logits, y), {self.images: logits})
