"""Noise before the attack."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xrobust.defenses.pgd_at import PGDAdversarialTraining
from xrobust.errors import at_least


class NFGSM(PGDAdversarialTraining):
    """min_θ E CE(f(x' + δ(x')), y), x' = x + η, η uniform in the ball of radius kε (de Jorge et al. 2022).

    The noise is an augmentation: the attack, FGSM in the paper, stays within ε of the noisy image x' and in the pixel
    box. The result is not clipped to the ball around x, by design: it lies within (k + 1)ε of it.

    Args:
        noise: k, the radius of the noise in units of ε.
        attack, clean_share, batch_norm, label_smoothing: as in `PGDAdversarialTraining`.
    """

    def __init__(self, *, noise: float = 2.0, **adversarial: Any):
        super().__init__(**adversarial)
        at_least("defense", 0.0, noise=noise)
        self.noise = noise

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        threat = self.attack.threat
        around = threat.with_eps(self.noise * threat.radius)
        return super().perturb(around.random_start(x, self.generator), y)
