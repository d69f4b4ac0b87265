"""How Auto-PGD moves and how it adapts: one rule for Linf and L2, another for L1."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.attacks.standing import PerSample, choose
from xrobust.threat import ThreatModel, per_sample


class Walk(PerSample):
    """Where the samples still attacked stand: the current and the previous point, and the best one so far."""

    def __init__(self, x: Tensor, y: Tensor, goal: Tensor | None, start: Tensor):
        self.rows = torch.arange(len(x), device=x.device)
        self.x, self.y, self.goal = x, y, goal
        self.x_t = self.x_before = self.best_x = start
        self.gradient = self.best_gradient = torch.zeros_like(x)
        self.value = self.value_before = self.best_value = x.new_full((len(x),), -torch.inf)

    def observe(self, value: Tensor, gradient: Tensor) -> None:
        """Take in the loss and its gradient at the current point."""
        better = value > self.best_value
        self.value_before, self.value, self.gradient = self.value, value, gradient
        self.best_x = choose(better, self.x_t, self.best_x)
        self.best_gradient = choose(better, gradient, self.best_gradient)
        self.best_value = torch.maximum(value, self.best_value)

    def return_to_best(self, chosen: Tensor) -> None:
        """Go on from the best point of the samples in the mask (N,)."""
        self.x_t = choose(chosen, self.best_x, self.x_t)
        self.gradient = choose(chosen, self.best_gradient, self.gradient)

    def move_to(self, x_next: Tensor) -> None:
        self.x_before, self.x_t = self.x_t, x_next


def checkpoints(steps: int) -> list[int]:
    """w_j = ⌈p_j · steps⌉ with p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j − p_{j−1} − .03, .06)."""
    percents, gap = [22], 22
    while percents[-1] < 100:
        gap = max(gap - 3, 6)
        percents.append(percents[-1] + gap)
    return sorted({-(-percent * steps // 100) for percent in percents if percent < 100})


class HalvingRule(PerSample):
    """Ascent with momentum; what stalls at a checkpoint halves its step and returns to its best point.

    A sample stalls if fewer than a share ρ of its steps since the last checkpoint raised the loss, or if
    neither its step size nor its best loss has changed since (Croce & Hein 2020, conditions 1 and 2).
    """

    momentum = 0.75

    def __init__(self, threat: ThreatModel, x: Tensor, steps: int, rho: float):
        self.threat, self.rho = threat, rho
        self.checkpoints = set(checkpoints(steps))
        self.last_checkpoint = 0
        self.size = x.new_full((len(x),), 2 * threat.radius)
        self.rises = torch.zeros_like(self.size)
        self.best_before = torch.full_like(self.size, -torch.inf)
        # True at first, because condition 2 compares two checkpoints.
        self.halved = torch.ones_like(self.size, dtype=torch.bool)

    def adapt(self, walk: Walk, step: int) -> None:
        self.rises += walk.value > walk.value_before
        if step not in self.checkpoints:
            return
        oscillates = self.rises < self.rho * (step - self.last_checkpoint)
        stalls = oscillates | (~self.halved & (walk.best_value <= self.best_before))
        walk.return_to_best(stalls)
        self.size = torch.where(stalls, self.size / 2, self.size)
        self.rises = torch.zeros_like(self.size)
        self.best_before, self.halved, self.last_checkpoint = walk.best_value, stalls, step

    def next_point(self, walk: Walk, step: int) -> Tensor:
        x_t = walk.x_t
        z = self._project(x_t + per_sample(self.size, x_t) * self.threat.ascent(walk.gradient), walk.x)
        if step == 0:
            return z
        inertia = self.momentum * (z - x_t) + (1 - self.momentum) * (x_t - walk.x_before)
        return self._project(x_t + inertia, walk.x)

    def _project(self, x_next: Tensor, x: Tensor) -> Tensor:
        # The box before the ball: an L2 step of 2ε that is shrunk first and clipped then ends well inside the ball.
        return self.threat.project(x_next.clamp_(*self.threat.clip), x)


class SparseRule(PerSample):
    """Signed steps on the largest gradient entries; their number is the best perturbation's support over 1.5.

    Every 4% of the steps: if the support has shrunk by more than 5%, the step size returns to ε and the walk
    to its best point; otherwise the step size is divided by 1.5, down to ε/10 (Croce & Hein 2021).
    """

    initial_share, reduction, period = 0.2, 1.5, 0.04

    def __init__(self, threat: ThreatModel, x: Tensor, steps: int, known: Tensor | None):
        self.threat = threat
        self.every = max(int(self.period * steps), 1)
        self.size = x.new_full((len(x),), threat.radius)
        if known is None:  # nothing is known of the sparsity that pays
            self.support = x.new_full((len(x),), x[0].numel())
            self.moved = self.initial_share * self.support
        else:
            self.support = _support(known, x)
            self.moved = self.support / self.reduction

    def adapt(self, walk: Walk, step: int) -> None:
        if step % self.every:
            return
        support = _support(walk.best_x, walk.x)
        sparser = support < 0.95 * self.support
        walk.return_to_best(sparser)
        radius = self.threat.radius
        self.size = torch.where(sparser, radius, self.size / self.reduction).clamp(min=radius / 10)
        self.support, self.moved = support, support / self.reduction

    def next_point(self, walk: Walk, step: int) -> Tensor:
        flat = walk.gradient.flatten(1)
        size = flat.abs()
        count = self.moved.long().clamp(1, flat.shape[1])
        smallest = size.sort(dim=1, descending=True).values.gather(1, count[:, None] - 1)
        signs = flat.sign() * (size >= smallest)
        step_size = self.size / signs.abs().sum(1).clamp(min=1)
        return self.threat.project(walk.x_t + (step_size[:, None] * signs).view_as(walk.x_t), walk.x)


def _support(x_adv: Tensor, x: Tensor) -> Tensor:
    """How many pixels differ, as a float: (N,)."""
    return (x_adv != x).flatten(1).sum(1).to(x.dtype)
