"""SmoothMix: mixing images with over-confident adversarial ones."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from xrobust.attacks import PGD
from xrobust.defenses.adversarial import check_share
from xrobust.defenses.base import Loss, mean_cross_entropy
from xrobust.defenses.objectives import kl_divergence
from xrobust.defenses.smoothed import SmoothedTraining, copied
from xrobust.errors import UserError, at_least
from xrobust.frame import hard_labels
from xrobust.randomness import uniform_like
from xrobust.smoothing import UnderNoise, mean_log_probability
from xrobust.threat import ThreatModel, exact_fraction, per_sample


class SmoothMix(SmoothedTraining):
    """min_θ E [(1/m) Σ_k CE(f(x + δ_k), y) + η · 1{p̄_y is the largest} · (1/m) Σ_k KL(y_mix ‖ p(x_mix + δ_k))].

    x̃ is what T steps x̃ ← x̃ + α ∇/‖∇‖₂ of −log p̄(x̃)_y lead to, in [0, 1] but in no ball; with λ ~ U(0, 1/2) for each
    image x_mix = (1 − λ) x + λ x̃ and y_mix = (1 − λ) p̄(x) + λ/K (Jeong et al. 2021). p̄ is the mean of softmax
    f(x + δ_k) over the m draws, which are the same everywhere.

    Args:
        sigma, copies: as in `SmoothedTraining`.
        steps: T ≥ 1.
        step_size: α > 0, in L2.
        weight: η ≥ 0. With η = 0 it is `GaussianSmoothing`.
        warmup: the share of the run over which η grows linearly to its value.
    """

    def __init__(
        self,
        *,
        copies: int = 4,
        steps: int = 4,
        step_size: Fraction | float | str = 1.0,
        weight: float = 5.0,
        warmup: float = 0.0,
        **smoothed: Any,
    ):
        super().__init__(copies=copies, **smoothed)
        at_least("defense", 1, steps=steps)
        at_least("defense", 0.0, weight=weight)
        alpha = exact_fraction(step_size, "defense.step_size")
        if alpha <= 0:
            raise UserError(f"defense.step_size must be above 0, got {step_size}")
        reach = ThreatModel("l2", steps * alpha)  # what T steps of α cannot leave
        self.ascent = PGD(threat=reach, steps=steps, step_size=alpha, random_start=False, autocast=True)
        self.weight, self.warmup = weight, check_share("warmup", warmup)

    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        noise = self.noise(x)
        logits = self.logits_under(x, noise)
        averaged = mean_log_probability(logits)
        natural = mean_cross_entropy(logits.flatten(0, 1), copied(y, self.copies))
        confident = self.ascent(UnderNoise(self.model, noise), x, y, generator=self.generator).to(x.dtype)
        share = 0.5 * uniform_like(x.flatten(1)[:, 0], self.generator).to(x.dtype)
        x_mix = x + per_sample(share, x) * (confident - x)
        kept, uniform = torch.log1p(-share), torch.log(share / averaged.shape[1])
        y_mix = torch.logaddexp(averaged + kept[:, None], uniform[:, None])
        divergence = kl_divergence(y_mix, self.logits_under(x_mix, noise)).mean(0)
        mixed = torch.where(averaged.argmax(1) == hard_labels(y), divergence, 0.0).mean()
        weight = self.weight * (min(self.progress / self.warmup, 1.0) if self.warmup else 1.0)
        terms = {"cross_entropy": natural, "mixed": mixed}
        return Loss(natural + weight * mixed, {"smoothed": averaged}, terms)
