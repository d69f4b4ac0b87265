"""SCORE: TRADES with squared errors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.base import Loss, at_least_float32
from xrobust.defenses.objectives import smoothed_target, squared_distance
from xrobust.errors import at_least


class SCORE(AdversarialTraining):
    """min_θ E [‖p(x) − e_y‖² + β · max(max_{δ ∈ B} ‖p(x + δ) − p(x)‖² − c, 0)] (Pang et al. 2022).

    A distance in the place of KL obeys the triangle inequality, so that being robust does not ask for being constant
    where the labels are not. The published code calls this form LSE. The loss is at most 2 + 2β.

    Args:
        attack: should maximise the same distance (`conf/attack/pgd_squared_error.yaml`).
        beta: β ≥ 0.
        clip: c ≥ 0, the distance up to which nothing is paid.
        batch_norm: "both", as published; or "clean" or "adversarial".
        label_smoothing: of the target e_y.
    """

    def __init__(self, *, beta: float = 4.0, clip: float = 0.0, batch_norm: str = "both", **adversarial: Any):
        super().__init__(batch_norm=batch_norm, **adversarial)
        at_least("defense", 0.0, beta=beta, clip=clip)
        self.beta, self.clip = beta, clip

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        clean, adversarial = self.both_logits(x, x_adv)
        p, p_adv = (at_least_float32(logits).softmax(1) for logits in (clean, adversarial))
        natural = squared_distance(p, smoothed_target(y, p.shape[1], self.label_smoothing)).mean()
        robust = (squared_distance(p_adv, p) - self.clip).clamp(min=0).mean()
        logits = {"clean": clean, "adversarial": adversarial}
        return Loss(natural + self.beta * robust, logits, {"clean_error": natural, "robust_error": robust})
