"""Auto-PGD: projected gradient ascent that finds its own step size."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.apgd_rules import HalvingRule, SparseRule, Walk
from xrobust.attacks.base import Attack
from xrobust.attacks.classes import likeliest_others
from xrobust.attacks.losses import AttackLoss, loss_of_logits, targeted_dlr
from xrobust.attacks.standing import Worst, require_at_least
from xrobust.errors import UserError
from xrobust.frame import logits_of, predictions
from xrobust.randomness import Generator, subset

Rule = HalvingRule | SparseRule
Objective = tuple[AttackLoss, Tensor | None]  # a loss and its third argument, (N,)

# (factor of ε, share of the steps): how Croce & Hein 2021, "Mind the box", spend the steps of an L1 run.
SHRINKING_RADII = ((3, 0.3), (2, 0.3), (1, 0.4))


@dataclass(frozen=True, kw_only=True)
class _AutoPGD(Attack):
    """What the two forms share: the runs, each on the samples still standing."""

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    shrinking_radius: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, steps=3 if self.shrinking_radius else 1, restarts=1)
        if not 0 < self.rho < 1:
            raise UserError(f"{type(self).__name__}.rho must lie between 0 and 1, got {self.rho}")

    @abstractmethod
    def objectives(self, logits: Tensor, y: Tensor) -> Iterator[Objective]:
        """What to maximise, one after the other, given the logits of the unperturbed images."""

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        with torch.no_grad():
            logits = logits_of(model, x)
        worst = Worst(x)
        worst.finish(predictions(logits) != y)
        for loss, goal in self.objectives(logits, y):
            for _ in range(self.restarts):
                rows = worst.standing
                if not len(rows):
                    return worst.x_adv
                goals = None if goal is None else goal[rows]
                found = self._run_once(model, x[rows], y[rows], (loss, goals), subset(generator, rows))
                worst.offer(rows, found.x_adv, found.value, found.broken)
        return worst.x_adv

    def _run_once(self, model: nn.Module, x: Tensor, y: Tensor, objective: Objective, generator: Generator) -> Worst:
        left, start = self.steps, None
        for factor, share in SHRINKING_RADII if self.shrinking_radius else ((1, 1.0),):
            threat = self.threat.with_eps(factor * self.threat.fraction)
            steps = left if factor == 1 else math.ceil(share * self.steps)
            left -= steps
            x_0 = threat.random_start(x, generator) if start is None else threat.project(start, x)
            rule: Rule = HalvingRule(threat, x, steps, self.rho)
            if threat.norm == "l1":
                rule = SparseRule(threat, x, steps, known=None if start is None else x_0)
            found = climb(model, x, y, objective, x_0, rule, steps, leave_when_wrong=factor == 1)
            start = found.x_adv
        return found


@dataclass(frozen=True, kw_only=True)
class APGD(_AutoPGD):
    """Projected ascent of a loss that finds its own step size (Croce & Hein 2020, 2021).

    Linf and L2: z = Π(x_t + η · ascent(g)), x_{t+1} = Π(x_t + ¾(z − x_t) + ¼(x_t − x_{t−1})), where η begins
    at 2ε and halves when progress stalls. L1: signed steps along the largest entries of the gradient, whose
    number follows the sparsity of the best perturbation. A sample is left alone once the model gets it wrong;
    otherwise its point of largest loss is returned.

    Args:
        steps: iterations of a run, ≥ 1 (≥ 3 with a shrinking radius).
        restarts: runs from independent random starts, ≥ 1.
        rho: the share of the steps between two checkpoints that must raise the loss for η to stay, in (0, 1).
        shrinking_radius: spend 30% of the steps in the ball of radius 3ε, 30% in 2ε first (published for L1).
        loss: a name in `attacks.losses` that needs no reference: "cross_entropy", "margin" or "dlr".
    """

    loss: str = "cross_entropy"

    def __post_init__(self) -> None:
        super().__post_init__()
        loss_of_logits(self.loss, "APGD.loss")

    def objectives(self, logits: Tensor, y: Tensor) -> Iterator[Objective]:
        yield loss_of_logits(self.loss, "loss"), None


@dataclass(frozen=True, kw_only=True)
class APGDTargeted(_AutoPGD):
    """Auto-PGD on the targeted DLR loss, towards one other class after the other (Croce & Hein 2020, APGD-T).

    It gets away from y, as the untargeted form does; `steps`, `restarts`, `rho`, `shrinking_radius` as there.

    Args:
        targets: how many of the likeliest other classes are tried, ≥ 1; all of them if there are fewer.
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, targets=1)

    def objectives(self, logits: Tensor, y: Tensor) -> Iterator[Objective]:
        for target in likeliest_others(logits, y)[:, : self.targets].unbind(1):
            yield targeted_dlr, target


def climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    objective: Objective,
    start: Tensor,
    rule: Rule,
    steps: int,
    leave_when_wrong: bool,
) -> Worst:
    """One run of `steps` iterations, at the cost of one forward and one backward pass each."""
    loss, goal = objective
    found = Worst(start)
    walk = Walk(x, y, goal, start)
    for step in range(steps + 1):
        x_in = walk.x_t.detach().requires_grad_(step < steps)
        logits = logits_of(model, x_in)
        value = loss(logits, walk.y, walk.goal)
        gradient = torch.autograd.grad(value.sum(), x_in)[0] if step < steps else walk.gradient
        walk.observe(value.detach(), gradient)
        wrong = predictions(logits) != walk.y
        if leave_when_wrong and wrong.any():
            found.offer(walk.rows[wrong], walk.x_t[wrong], walk.value[wrong], wrong[wrong])
            walk.keep(~wrong)
            rule.keep(~wrong)
            if not len(walk.rows):
                return found
        if step > 0:
            rule.adapt(walk, step)
        if step < steps:
            walk.move_to(rule.next_point(walk, step))
    found.offer(walk.rows, walk.best_x, walk.best_value, torch.zeros_like(walk.rows, dtype=torch.bool))
    return found
