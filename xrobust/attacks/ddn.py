"""Decoupled direction and norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attacks.fmn import half_cosine
from xrobust.attacks.losses import cross_entropy
from xrobust.attacks.minimum_norm import Nearest, TargetableMinimumNorm
from xrobust.attacks.standing import PerSample, require_at_least
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.threat import per_sample


@dataclass(frozen=True, kw_only=True)
class DDN(TargetableMinimumNorm):
    """Ascent of the cross entropy on a sphere whose radius follows a rule of its own (Rony et al. 2019).

    δ ← δ + α g/‖g‖₂; ε ← (1 − γ)ε where x + δ was adversarial, else (1 + γ)ε; δ ← ε δ/‖δ‖₂, clipped to the
    box. α falls from 1 to 0.01 along half a cosine. L2 only.

    Args:
        steps: iterations, ≥ 1; one forward and one backward pass each.
        initial_norm: the first ε > 0.
        gamma: γ in (0, 1).
        targeted: y holds the classes to reach instead of those to get away from.
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = 100
    initial_norm: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=1)
        if self.initial_norm <= 0:
            raise UserError(f"DDN.initial_norm must be above 0, got {self.initial_norm}")
        if not 0 < self.gamma < 1:
            raise UserError(f"DDN.gamma must lie between 0 and 1, got {self.gamma}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator, enough: float) -> Nearest:
        nearest, _ = self.start(model, x, y)
        rows = nearest.beyond(enough)
        walk = _Walk(rows, x[rows], y[rows], self.initial_norm)
        for step in range(self.steps):
            if not len(walk.rows):
                break
            self._advance(model, walk, nearest, half_cosine(1.0, 0.01, step / self.steps))
            walk.keep(nearest.distance[walk.rows] > enough)
        return nearest

    def _advance(self, model: nn.Module, walk: _Walk, nearest: Nearest, alpha: float) -> None:
        x_in = walk.x_t.detach().requires_grad_()
        logits = logits_of(model, x_in)
        loss = cross_entropy(logits, walk.y).sum()
        (gradient,) = torch.autograd.grad(-loss if self.targeted else loss, x_in)
        adversarial = self.is_adversarial(logits, walk.y)
        nearest.offer(walk.rows, walk.x_t, adversarial)

        walk.eps = walk.eps * torch.where(adversarial, 1 - self.gamma, 1 + self.gamma)
        delta = self.threat.ascent(walk.x_t - walk.x + alpha * self.threat.ascent(gradient))
        walk.x_t = (walk.x + per_sample(walk.eps, delta) * delta).clamp(*self.threat.clip)


class _Walk(PerSample):
    def __init__(self, rows: Tensor, x: Tensor, y: Tensor, initial_norm: float):
        self.rows, self.x, self.y, self.x_t = rows, x, y, x
        self.eps = x.new_full((len(x),), initial_norm)
