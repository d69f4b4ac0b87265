"""DeepFool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attacks.classes import likeliest_others, nearest_boundary
from xrobust.attacks.hyperplane import dual_norm
from xrobust.attacks.minimum_norm import MinimumNorm, Nearest
from xrobust.attacks.standing import PerSample, require_at_least
from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.threat import per_sample

# Added to each step, as in the authors' code: else clipped steps close in on the boundary and never cross it.
NUDGE = 1e-4


@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimumNorm):
    """Steps to the nearest linearised boundary until one is crossed (Moosavi-Dezfooli et al. 2016).

    With z_k − z_y linearised at x_t for the class k of the nearest boundary, and w its gradient:
    r ← r + |z_k − z_y| / ‖w‖_q · ascent(w), x_t = clip(x + (1 + overshoot) r). Linf and L2.

    Args:
        steps: iterations, ≥ 1.
        overshoot: η ≥ 0, by which the sum of the steps is stretched.
        candidates: how many of the likeliest other classes are looked at, ≥ 1, at a backward pass each.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    steps: int = 50
    overshoot: float = 0.02
    candidates: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=1, overshoot=0.0, candidates=1)

    def search(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator, enough: float) -> Nearest:
        nearest, logits = self.start(model, x, y)
        rows = nearest.beyond(enough)
        walk = _Walk(rows, x[rows], y[rows], likeliest_others(logits, y)[rows, : self.candidates])
        for _ in range(self.steps):
            if not len(walk.rows):
                break
            residual, normal = nearest_boundary(self.threat.norm, model, walk.x_t, walk.y, walk.classes)
            distance = residual.abs() / dual_norm(self.threat.norm, normal).clamp(min=1e-12) + NUDGE
            walk.total = walk.total + per_sample(distance, normal) * self.threat.ascent(normal)
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
