"""The size of the input gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.errors import UserError, one_of
from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import (
    check_score,
    input_gradient,
    l1_norm,
    l2_norm,
    score_of,
    squared_norm,
    unit,
    value_and_gradient,
)

NORMS: dict[str, Callable[[Tensor], Tensor]] = {"l1": l1_norm, "l2": l2_norm, "squared": squared_norm}


@dataclass(frozen=True, kw_only=True)
class InputGradient(Regularizer):
    """R(x) = ‖∇ₓ s(f(x))‖₁, ‖∇ₓ s(f(x))‖₂ or ‖∇ₓ s(f(x))‖₂² (Drucker & LeCun 1992; Ross & Doshi-Velez 2018).

    With a finite difference h nothing is differentiated twice: with the constant direction d = g/‖g‖₂ (for ℓ1 d =
    sign(g)) of g = ∇ₓ s, the norm is (s(f(x + h d)) − s(f(x))) / h up to terms of order h (Finlay & Oberman 2021).

    Args:
        of: s, the "loss" CE, the "logit" of the label, or the "margin" to the largest other logit.
        norm: "l1", "l2" or "squared".
        finite_difference: h > 0 in pixel units, or none to differentiate the gradient.
    """

    of: str = "loss"
    norm: str = "squared"
    finite_difference: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_score(f"{name}.of", self.of)
        if self.norm not in NORMS:
            raise one_of(f"{name}.norm", self.norm, list(NORMS))
        if self.finite_difference is not None and not self.finite_difference > 0:
            raise UserError(f"{name}.finite_difference must be above 0 or none, got {self.finite_difference!r}")

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        score = score_of(self.of, y)
        if self.finite_difference is None:
            return NORMS[self.norm](input_gradient(model, x, score))
        value, gradient = value_and_gradient(model, x, score, create_graph=x.requires_grad)
        direction = gradient.detach().sign() if self.norm == "l1" else unit(gradient)
        there = score(logits_of(model, x + self.finite_difference * direction))
        slope = (there - value) / self.finite_difference
        return slope.square() if self.norm == "squared" else slope
