"""Noise before the attack."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from xrobust.defenses.pgd_at import PGDAdversarialTraining
from xrobust.errors import at_least


class NFGSM(PGDAdversarialTraining):
    """min_θ E CE(f(x' + δ(x')), y), x' = x + η, η uniform in the ball of radius kε (de Jorge et al. 2022).

    The noise is an augmentation: the attack, FGSM in the paper, stays within ε of the noisy image x' and in the pixel
    range. The result is not clipped to the ball around x, by design: it lies within (k + 1)ε of it.

    Args:
        noise: k, the radius of the noise in units of ε.
        start_in_box: clip x' to the pixel range before the attack, as the paper's code does and its algorithm does not;
            see `FGSMRS`.
        attack, clean_share, batch_norm, label_smoothing: as in `PGDAdversarialTraining`.
    """

    def __init__(self, *, noise: float = 2.0, start_in_box: bool = False, **adversarial: Any):
        super().__init__(**adversarial)
        at_least("defense", 0.0, noise=noise)
        self.noise = noise
        self.start_in_box = start_in_box

    def attacked(self, x: Tensor, y: Tensor) -> Tensor:
        threat = self.attack.threat
        around = threat.with_eps(self.noise * threat.radius)
        noisy = around.random_start(x, self.generator, in_box=self.start_in_box)
        low, high = threat.clip
        wide = replace(threat, clip=(low - around.radius, high + around.radius))
        attack = replace(self.attack, threat=wide)
        return attack(self.model, noisy, y, generator=self.generator).clamp(low, high)
