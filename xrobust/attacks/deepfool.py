"""DeepFool."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.base import logits_of
from xrobust.attacks.classes import likeliest_others, nearest_boundary
from xrobust.attacks.hyperplane import step_to_hyperplane
from xrobust.attacks.minimum_norm import MinimumNorm, Nearest
from xrobust.attacks.standing import PerSample, require_at_least
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimumNorm):
    """Steps to the nearest linearised boundary until one is crossed (Moosavi-Dezfooli et al. 2016).

    r ← r + argmin ‖δ‖_p with δ on the linearised boundary, x_t = clip(x + (1 + overshoot) r). The steps respect the
    pixel box, which the paper leaves out.

    Args:
        steps: iterations, ≥ 1.
        overshoot: η ≥ 0, by which the sum of the steps is stretched.
        candidates: how many of the likeliest other classes are looked at, ≥ 1; each costs a backward pass a step.
    """

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=1, overshoot=0, candidates=1)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator, enough: float) -> Nearest:
        nearest, logits = self.start(model, x, y)
        rows = nearest.beyond(enough)
        walk = _Walk(rows, x[rows], y[rows], likeliest_others(logits, y)[rows, : self.candidates])
        for _ in range(self.steps):
            if not len(walk.rows):
                break
            residual, normal = nearest_boundary(self.threat.norm, model, walk.x_t, walk.y, walk.classes)
            walk.total = walk.total + step_to_hyperplane(
                self.threat.norm, walk.x_t, normal, residual, self.threat.clip
            )
            walk.x_t = (walk.x + (1 + self.overshoot) * walk.total).clamp(*self.threat.clip)
            with torch.no_grad():
                adversarial = self.is_adversarial(logits_of(model, walk.x_t), walk.y)
            nearest.offer(walk.rows, walk.x_t, adversarial)
            walk.keep(~adversarial)
        return nearest


class _Walk(PerSample):
    def __init__(self, rows: Tensor, x: Tensor, y: Tensor, classes: Tensor):
        self.rows, self.x, self.y, self.classes = rows, x, y, classes
        self.x_t, self.total = x, torch.zeros_like(x)
