"""Images on which a penalty is large, to train on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks import Attack
from xrobust.attacks.step_size import StepSize, check_step_size
from xrobust.errors import at_least
from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.regularizers.ball import ascend
from xrobust.regularizers.base import Regularizer


@dataclass(frozen=True, kw_only=True)
class PenaltyAscent(Attack):
    """x' ← Π(x' + α·ascent(∇_x' R(x'))) from a random start: the attack of attributional training (Singh et al. 2020).

    Args:
        regularizer: R.
        steps: ≥ 1.
        step_size: α in pixel units; none means 2.5 · ε / steps.
    """

    regularizer: Regularizer
    steps: int = 3
    step_size: StepSize = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        at_least(name, 1, steps=self.steps)
        check_step_size(name, self.step_size)

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        with torch.no_grad():
            logits = logits_of(model, x)

        def penalty(point: Tensor) -> Tensor:
            return self.regularizer.penalty(model, point, y, logits, generator)

        return ascend(penalty, x, self.threat, self.steps, self.step_size, generator)
