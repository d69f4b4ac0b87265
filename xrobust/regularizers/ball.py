"""What regularisers share that look at a ball around the image: its radius, and the worst point in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

import torch
from torch import Tensor, nn

from xrobust.attacks.step_size import StepSize, check_step_size, pixel_step
from xrobust.errors import at_least
from xrobust.frame import untouched
from xrobust.randomness import Generator
from xrobust.regularizers.base import Regularizer
from xrobust.threat import ThreatModel


@dataclass(frozen=True, kw_only=True)
class BallRegularizer(Regularizer):
    """A regulariser of the network's behaviour in a ball around x.

    Args:
        threat: the ball.
    """

    threat: ThreatModel

    def at_share_of_eps(self, share: Fraction) -> Self:
        return replace(self, threat=self.threat.with_eps(self.threat.fraction * share))


@dataclass(frozen=True, kw_only=True)
class WorstCase(BallRegularizer):
    """A regulariser at the point of the ball that climbs an objective furthest, which is a constant to the weights.

    It is found by x' ← Π(x' + α·ascent(∇_x' objective(x'))) from a random start.

    Args:
        steps: of the ascent, ≥ 1.
        step_size: α in pixel units; none means 2.5 · ε / steps.
    """

    steps: int = 10
    step_size: StepSize = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        at_least(name, 1, steps=self.steps)
        check_step_size(name, self.step_size)

    def worst(self, model: nn.Module, objective: Callable[[Tensor], Tensor], x: Tensor, generator: Generator) -> Tensor:
        """The x' that was found, (N, C, H, W); meanwhile the weights are constants."""
        with untouched(model, x):
            return ascend(objective, x, self.threat, self.steps, self.step_size, generator)


def ascend(
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    threat: ThreatModel,
    steps: int,
    step_size: StepSize,
    generator: Generator,
) -> Tensor:
    """Projected steepest ascent in a ball from a random point; the last point, detached: (N, ...) → (N, ...)."""
    alpha = pixel_step(step_size, threat, steps)
    x = x.detach()
    point = threat.random_start(x, generator)
    for _ in range(steps):
        point = point.detach().requires_grad_()
        # 0 · x' gives an objective that does not depend on x' the gradient zero.
        (gradient,) = torch.autograd.grad(objective(point).sum() + 0 * point.sum(), point)
        point = threat.project(point + alpha * threat.ascent(gradient), x)
    return point.detach()
