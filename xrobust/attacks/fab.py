"""The fast adaptive boundary attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.classes import likeliest_others, nearest_boundary
from xrobust.attacks.hyperplane import step_to_hyperplane
from xrobust.attacks.losses import margin
from xrobust.attacks.minimum_norm import MinimumNorm, Nearest
from xrobust.attacks.standing import PerSample, choose, require_at_least
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator, subset
from xrobust.threat import per_sample


@dataclass(frozen=True, kw_only=True)
class FAB(MinimumNorm):
    """Steps to the linearised decision boundary, biased towards x (Croce & Hein 2020, FAB).

    With δ and δ_x the steps from x_t and from x to the boundary linearised at x_t, within the box:
    x_{t+1} = (1 − a)(x_t + ηδ) + a(x + ηδ_x), a = min(‖δ‖ / (‖δ‖ + ‖δ_x‖), α_max). The search goes on from
    there, and from x + β(x_{t+1} − x) where that point is adversarial.

    Args:
        steps: iterations of a run, ≥ 1.
        restarts: runs, ≥ 1: the first from x, the others from random points nearby.
        targets: none takes the nearest of the boundaries to all other classes, at K − 1 backward passes a
            step; a number searches towards so many likeliest other classes, one after the other (FAB-T).
        alpha_max: the largest bias a towards x, in [0, 1].
        eta: the overshoot η, ≥ 1.
        beta: how far an adversarial point is pulled back, in (0, 1).
    """

    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=1, restarts=1, eta=1.0)
        if self.targets is not None:
            require_at_least(self, targets=1)
        if not 0 <= self.alpha_max <= 1:
            raise UserError(f"FAB.alpha_max must lie in [0, 1], got {self.alpha_max}")
        if not 0 < self.beta < 1:
            raise UserError(f"FAB.beta must lie between 0 and 1, got {self.beta}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator, enough: float) -> Nearest:
        nearest, logits = self.start(model, x, y)
        others = likeliest_others(logits, y)
        for classes in [others] if self.targets is None else others[:, : self.targets].split(1, dim=1):
            for restart in range(self.restarts):
                rows = nearest.beyond(enough)
                if not len(rows):
                    return nearest
                start = x[rows]
                if restart > 0:
                    start = self._nearby(start, nearest.distance[rows], subset(generator, rows))
                self._run_once(model, _Walk(rows, x[rows], y[rows], classes[rows], start), nearest, enough)
                self._approach(model, y, nearest, enough)
        return nearest

    def _nearby(self, x: Tensor, distance: Tensor, generator: Generator) -> Tensor:
        """A random point within half of ε, or half of the smallest distance found if that is less."""
        share = (distance / self.threat.radius).clamp(max=1).to(x.dtype) / 2
        return x + per_sample(share, x) * (self.threat.random_start(x, generator) - x)

    def _run_once(self, model: nn.Module, walk: _Walk, nearest: Nearest, enough: float) -> None:
        for _ in range(self.steps):
            if not len(walk.rows):
                break
            x_next = self._step(model, walk).clamp_(*self.threat.clip)
            with torch.no_grad():
                adversarial = self.is_adversarial(logits_of(model, x_next), walk.y)
            nearest.offer(walk.rows, x_next, adversarial)
            walk.x_t = choose(adversarial, walk.x + self.beta * (x_next - walk.x), x_next)
            walk.keep(nearest.distance[walk.rows] > enough)

    def _step(self, model: nn.Module, walk: _Walk) -> Tensor:
        norm, x_t, x = self.threat.norm, walk.x_t, walk.x
        residual, normal = nearest_boundary(norm, model, x_t, walk.y, walk.classes)
        residuals = torch.cat([residual, residual + (normal * (x - x_t)).flatten(1).sum(1)])
        points, normals = torch.cat([x_t, x]), torch.cat([normal, normal])
        steps = step_to_hyperplane(norm, points, normals, residuals, self.threat.clip)
        length = self.threat.distance(steps, torch.zeros_like(steps)).clamp(min=1e-12)
        here, from_x = (points + self.eta * steps).chunk(2)
        near, far = length.to(points.dtype).chunk(2)
        bias = per_sample((near / (near + far)).clamp(max=self.alpha_max), here)
        return (1 - bias) * here + bias * from_x

    def _approach(self, model: nn.Module, y: Tensor, nearest: Nearest, enough: float) -> None:
        """Three steps of a secant search for the boundary on the way from the nearest point back to x."""
        rows = (nearest.distance.isfinite() & (nearest.distance > enough)).nonzero().flatten()
        if not len(rows):
            return
        outer, inner = nearest.x_adv[rows], nearest.x[rows]
        with torch.no_grad():
            high, low = (margin(logits_of(model, point), y[rows]) for point in (outer, inner))
            for _ in range(3):
                share = (high / (high - low).clamp(min=1e-12)).clamp(0, 1)
                # Nine tenths of the way to where the secant vanishes, so as to stay on the adversarial side.
                point = torch.lerp(outer, inner, per_sample(0.9 * share, outer))
                logits = logits_of(model, point)
                adversarial, value = self.is_adversarial(logits, y[rows]), margin(logits, y[rows])
                nearest.offer(rows, point, adversarial)
                outer, inner = choose(adversarial, point, outer), choose(adversarial, inner, point)
                high, low = value.where(adversarial, high), low.where(adversarial, value)


class _Walk(PerSample):
    def __init__(self, rows: Tensor, x: Tensor, y: Tensor, classes: Tensor, x_t: Tensor):
        self.rows, self.x, self.y, self.classes, self.x_t = rows, x, y, classes, x_t
