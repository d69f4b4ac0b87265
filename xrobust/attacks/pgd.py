"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack
from xrobust.attacks.losses import WITH_REFERENCE, AttackLoss, loss_named
from xrobust.attacks.step_size import StepSize, check_step_size, pixel_step
from xrobust.errors import UserError, at_least
from xrobust.frame import logits_of, predictions
from xrobust.randomness import Generator, uniform_like
from xrobust.threat import per_sample


@dataclass(frozen=True, kw_only=True)
class PGD(Attack):
    """x_{t+1} = Π(x_t + α · ascent(∇ₓ ℓ(f(x_t), y))), Madry et al. 2018.

    Args:
        steps: iterations, ≥ 1.
        step_size: α in pixel units ("2/255"); none means 2.5 · ε / steps, so that α follows ε.
        random_start: begin at a random point of the ball instead of at x: uniform in the ball of Linf and L1;
            for L2 uniform in direction and in length.
        restarts: independent runs; the worst of them is returned for each sample. Above 1 needs a random start.
        momentum: μ of the accumulated gradient g ← μ·g + ∇/‖∇‖₁ (Dong et al. 2018, MI-FGSM); 0 is plain PGD.
        loss: a name in `attacks.losses`: "cross_entropy", "margin" (CW) or "kl".
        targeted: y holds the classes to reach; the loss is descended.
        keep: "last" returns the final iterate (training: no forward pass is spent on comparing). "worst" returns,
            for each sample, the first iterate that the model gets wrong, or else the one of largest loss, and
            spends no further step or restart on a sample once it is wrong (evaluation).
    """

    steps: int = 10
    step_size: StepSize = None
    random_start: bool = True
    restarts: int = 1
    momentum: float = 0.0
    loss: str = "cross_entropy"
    targeted: bool = False
    keep: str = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        at_least(name, 1, steps=self.steps, restarts=self.restarts)
        at_least(name, 0.0, momentum=self.momentum)
        if self.restarts > 1 and not self.random_start:
            raise UserError(f"{name}.restarts={self.restarts} needs random_start=true: the restarts would be equal")
        if self.restarts > 1 and self.keep == "last":
            raise UserError(f"{name}.restarts={self.restarts} needs keep=worst: the last restart is not the worst")
        if self.keep not in ("last", "worst"):
            raise UserError(f"{name}.keep must be 'last' or 'worst', got {self.keep!r}")
        check_step_size(name, self.step_size)
        loss_named(self.loss, f"{name}.loss")

    @property
    def alpha(self) -> float:
        """The step size α in pixel units."""
        return pixel_step(self.step_size, self.threat, self.steps)

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        loss = loss_named(self.loss, "loss")
        with torch.no_grad():
            reference = logits_of(model, x) if loss in WITH_REFERENCE else None
        if self.keep == "last":
            return self._descend(model, x, y, self._start(x, generator), loss, reference)
        return self._search(model, x, y, generator, loss, reference)

    def _start(self, x: Tensor, generator: Generator) -> Tensor:
        if not self.random_start:
            return x
        start = self.threat.random_start(x, generator)
        if self.threat.norm != "l2":
            return start
        # In many dimensions nearly all of an L2 ball lies at its surface, and from there the steps find less.
        length = uniform_like(x.flatten(1)[:, 0], generator).to(x.dtype)
        return x + per_sample(length, x) * (start - x)

    def _step(self, x_t: Tensor, x: Tensor, gradient: Tensor, velocity: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One ascent step and projection; the velocity is only carried with momentum."""
        if self.momentum:
            scale = gradient.flatten(1).abs().sum(1)
            unit = gradient / per_sample(scale.where(scale > 0, 1), gradient)
            gradient = velocity = unit if velocity is None else self.momentum * velocity + unit
        alpha = -self.alpha if self.targeted else self.alpha
        return self.threat.project(x_t + alpha * self.threat.ascent(gradient), x), velocity

    def _descend(
        self, model: nn.Module, x: Tensor, y: Tensor, x_t: Tensor, loss: AttackLoss, reference: Tensor | None
    ) -> Tensor:
        velocity = None
        for _ in range(self.steps):
            x_in = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(logits_of(model, x_in), y, reference).sum(), x_in)
            x_t, velocity = self._step(x_t, x, gradient, velocity)
        return x_t

    def _search(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: Generator,
        loss: AttackLoss,
        reference: Tensor | None,
    ) -> Tensor:
        """All restarts, keeping the worst iterate of each sample and dropping the samples that are wrong."""
        worst, worst_loss = x.clone(), torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
        standing = torch.arange(len(x), device=x.device)
        for _ in range(self.restarts):
            start = self._start(x, generator)  # drawn for all: streams do not depend on who stands
            x_t, velocity = start[standing], None
            for step in range(self.steps + 1):
                x_in = x_t.detach().requires_grad_(step < self.steps)
                logits = logits_of(model, x_in)
                value = loss(logits, y[standing], None if reference is None else reference[standing])
                if self.targeted:
                    value = -value
                fooled = (predictions(logits) == y[standing]) == self.targeted
                better = fooled | (value > worst_loss[standing])
                worst[standing[better]] = x_t[better]
                worst_loss[standing[better]] = value.detach()[better]
                if step < self.steps:
                    signed = -value.sum() if self.targeted else value.sum()
                    (gradient,) = torch.autograd.grad(signed, x_in)
                    x_t, velocity = self._step(x_t, x[standing], gradient, velocity)
                if fooled.any():
                    left = ~fooled
                    standing, x_t = standing[left], x_t[left]
                    velocity = None if velocity is None else velocity[left]
                    if not len(standing):
                        return worst
        return worst
