"""Curvature along the steepest direction."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.errors import UserError
from xrobust.randomness import Generator
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import input_gradient, l2_norm, loss_of, squared_norm, unit


@dataclass(frozen=True, kw_only=True)
class CURE(Regularizer):
    """R(x) = ‖∇ℓ(x + h z) − ∇ℓ(x)‖₂, z = sign(∇ℓ(x)) / ‖sign(∇ℓ(x))‖₂ (Moosavi-Dezfooli et al. 2019).

    For small h it is h ‖H z‖, H the Hessian of the loss in x. z is a constant.

    Args:
        h: the length of the step in pixel units, > 0.
        squared: ‖·‖₂², as in the paper's formula; the published code does not square.
    """

    h: float = 3.0
    squared: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.h > 0:
            raise UserError(f"{type(self).__name__}.h must be above 0, got {self.h!r}")

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        here = input_gradient(model, x, loss_of(y))
        there = input_gradient(model, x + self.h * unit(here.detach().sign()), loss_of(y))
        return (squared_norm if self.squared else l2_norm)(there - here)
