"""The L2 attack of Carlini and Wagner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attacks.minimum_norm import Nearest, TargetableMinimumNorm
from xrobust.attacks.standing import PerSample, require_at_least
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class CarliniWagnerL2(TargetableMinimumNorm):
    """min_w ‖x' − x‖₂² + c · max(κ − m(x'), 0) by Adam, x' = ½(tanh w + 1) (Carlini & Wagner 2017).

    tanh is stretched to the pixel box, and m is the margin by which the prediction is wrong. Bisection finds,
    for each sample, the smallest weight c that yields an adversarial example.

    Args:
        steps: Adam iterations for each c, ≥ 1.
        search_steps: values of c, ≥ 1.
        learning_rate: of Adam, > 0.
        initial_c: the first c > 0; ten times as much while nothing is found.
        confidence: κ ≥ 0, the margin that an example must have.
        abort_early: give a sample up for this c when a tenth of the steps does not lower its objective.
        targeted: y holds the classes to reach instead of those to get away from.
    """

    norms: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = 1000
    search_steps: int = 9
    learning_rate: float = 0.01
    initial_c: float = 1e-3
    confidence: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=1, search_steps=1, confidence=0.0)
        for field in ("learning_rate", "initial_c"):
            if getattr(self, field) <= 0:
                raise UserError(f"CarliniWagnerL2.{field} must be above 0, got {getattr(self, field)}")

    def search(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator, enough: float) -> Nearest:
        nearest, _ = self.start(model, x, y)
        low, high = x.new_zeros(len(x)), x.new_full((len(x),), torch.inf)
        c = torch.full_like(low, self.initial_c)
        for _ in range(self.search_steps):
            rows = nearest.beyond(enough)
            if not len(rows):
                break
            found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            walk = _Walk(rows, x[rows], y[rows], c[rows], self._to_tanh(x[rows]))
            self._descend(model, walk, nearest, found, enough)
            low, high = torch.where(found, low, c), torch.where(found, c, high)
            c = torch.where(high.isfinite(), (low + high) / 2, 10 * c)
        return nearest

    def _descend(self, model: nn.Module, walk: _Walk, nearest: Nearest, found: Tensor, enough: float) -> None:
        """Adam at one c for each sample; marks in `found` (N,) the samples for which it finds an example."""
        every = max(self.steps // 10, 1)
        for step in range(1, self.steps + 1):
            if not len(walk.rows):
                break
            w = walk.w.detach().requires_grad_()
            point = self._to_box(w)
            logits = logits_of(model, point)
            progress = self.progress(logits, walk.y)
            missing = (self.confidence - progress).clamp(min=0)
            objective = (point - walk.x).flatten(1).square().sum(1) + walk.c * missing
            (gradient,) = torch.autograd.grad(objective.sum(), w)
            adversarial = self.is_adversarial(logits, walk.y) & (progress.detach() >= self.confidence)
            nearest.offer(walk.rows, point.detach(), adversarial)
            found[walk.rows] |= adversarial
            walk.descend(gradient, self.learning_rate, step)
            left = nearest.distance[walk.rows] > enough
            if self.abort_early and step % every == 0:
                left &= objective.detach() <= 0.9999 * walk.objective
                walk.objective = objective.detach()
            walk.keep(left)

    def _to_box(self, w: Tensor) -> Tensor:
        low, high = self.threat.clip
        return low + (high - low) * (w.tanh() + 1) / 2

    def _to_tanh(self, x: Tensor) -> Tensor:
        low, high = self.threat.clip
        return ((2 * (x - low) / (high - low) - 1) * (1 - 1e-6)).atanh()


class _Walk(PerSample):
    """The samples still optimised, with Adam's moments."""

    def __init__(self, rows: Tensor, x: Tensor, y: Tensor, c: Tensor, w: Tensor):
        self.rows, self.x, self.y, self.c, self.w = rows, x, y, c, w
        self.first, self.second = torch.zeros_like(w), torch.zeros_like(w)
        self.objective = torch.full_like(c, torch.inf)

    def descend(self, gradient: Tensor, learning_rate: float, step: int) -> None:
        """One step of Adam (Kingma & Ba 2015)."""
        self.first = torch.lerp(gradient, self.first, 0.9)
        self.second = torch.lerp(gradient.square(), self.second, 0.999)
        mean, square = self.first / (1 - 0.9**step), self.second / (1 - 0.999**step)
        self.w = self.w - learning_rate * mean / (square.sqrt() + 1e-8)
