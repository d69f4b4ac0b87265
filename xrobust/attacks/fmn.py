"""The fast minimum-norm attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.hyperplane import dual_norm
from xrobust.attacks.minimum_norm import Nearest, TargetableMinimumNorm
from xrobust.attacks.standing import PerSample, require_at_least
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.threat import ThreatModel, per_sample


@dataclass(frozen=True, kw_only=True)
class FMN(TargetableMinimumNorm):
    """Ascent of the margin in a ball whose radius closes in on the boundary (Pintor et al. 2021).

    δ ← Π_ε(δ + α g/‖g‖₂), clipped to the box first. Where x + δ is adversarial, ε ← min((1 − γ)ε, the best norm so
    far), else ε ← (1 + γ)ε; before anything is found, ε is at least ‖δ‖ plus the linearised distance to the
    boundary, |margin| / ‖g‖_q. (The paper takes that sum itself, which can close in on the boundary and never
    cross it.) α and γ fall along half a cosine.

    Args:
        steps: iterations, ≥ 1; one forward and one backward pass each.
        step_size: the first α > 0; the last is a hundredth of it.
        gamma: the first γ in (0, 1); the last is 0.001.
        targeted: y holds the classes to reach instead of those to get away from.
    """

    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=1)
        if self.step_size <= 0:
            raise UserError(f"FMN.step_size must be above 0, got {self.step_size}")
        if not 0 < self.gamma < 1:
            raise UserError(f"FMN.gamma must lie between 0 and 1, got {self.gamma}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator, enough: float) -> Nearest:
        nearest, _ = self.start(model, x, y)
        rows = nearest.beyond(enough)
        walk = _Walk(rows, x[rows], y[rows])
        for step in range(self.steps):
            if not len(walk.rows):
                break
            alpha = half_cosine(self.step_size, self.step_size / 100, step / self.steps)
            gamma = half_cosine(self.gamma, 0.001, step / self.steps)
            self._advance(model, walk, nearest, alpha, gamma)
            walk.keep(nearest.distance[walk.rows] > enough)
        return nearest

    def _advance(self, model: nn.Module, walk: _Walk, nearest: Nearest, alpha: float, gamma: float) -> None:
        x_in = (walk.x + walk.delta).clamp_(*self.threat.clip).requires_grad_()
        logits = logits_of(model, x_in)
        value = self.progress(logits, walk.y)
        (gradient,) = torch.autograd.grad(value.sum(), x_in)
        adversarial = self.is_adversarial(logits, walk.y)
        nearest.offer(walk.rows, x_in.detach(), adversarial)

        best = nearest.distance[walk.rows].to(walk.eps.dtype)
        linearised = value.detach().abs() / dual_norm(self.threat.norm, gradient).clamp(min=1e-12)
        length = self.threat.distance(x_in.detach(), walk.x).to(walk.eps.dtype)
        estimate = (length + linearised).masked_fill(best.isfinite(), 0)
        outwards = torch.maximum(walk.eps * (1 + gamma), estimate)
        walk.eps = torch.where(adversarial, torch.minimum(walk.eps * (1 - gamma), best), outwards)
        unit = gradient / per_sample(gradient.flatten(1).norm(dim=1).clamp(min=1e-12), gradient)
        # In the box first: what lies outside of it would use up ε and move nothing.
        step = (walk.x + walk.delta + alpha * unit).clamp_(*self.threat.clip) - walk.x
        walk.delta = within(self.threat.norm, step, walk.eps)


class _Walk(PerSample):
    def __init__(self, rows: Tensor, x: Tensor, y: Tensor):
        self.rows, self.x, self.y, self.delta = rows, x, y, torch.zeros_like(x)
        self.eps = x.new_zeros(len(x))


def half_cosine(first: float, last: float, progress: float) -> float:
    """From `first` at progress 0 to `last` at progress 1 along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2


def within(norm: str, delta: Tensor, radius: Tensor) -> Tensor:
    """The projection of δ onto a ball of its own radius for each sample: (N, ...), (N,)."""
    # The projection onto the unit ball, in units of the radius; the box is so wide that it does not matter.
    unit_ball = ThreatModel(norm, 1, clip=(-1e6, 1e6))
    scale = per_sample(radius.clamp(min=1e-12), delta)
    return scale * unit_ball.project(delta / scale, torch.zeros_like(delta))
