"""Local linearity of the loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.regularizers.ball import WorstCase
from xrobust.regularizers.gradients import dot, loss_of, value_and_gradient


@dataclass(frozen=True, kw_only=True)
class LLR(WorstCase):
    """R(x) = λ γ(x, δ) + μ |δᵀ∇ℓ(x)|, γ = |ℓ(x + δ) − ℓ(x) − δᵀ∇ℓ(x)|, δ = argmax γ in the ball (Qin et al. 2019).

    Args:
        linearity: λ ≥ 0.
        slope: μ ≥ 0.
        threat, steps, step_size: of the search for δ.
    """

    linearity: float = 4.0
    slope: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0.0, linearity=self.linearity, slope=self.slope)

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        value, gradient = value_and_gradient(model, x, loss_of(y))
        constants = value.detach(), gradient.detach()
        found = self.worst(model, lambda point: _gap(model, x, point, y, *constants), x, generator)
        gap = _gap(model, x, found, y, value, gradient)
        return self.linearity * gap + self.slope * dot(found - x, gradient).abs()


def _gap(model: nn.Module, x: Tensor, other: Tensor, y: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """|ℓ(x') − ℓ(x) − ⟨x' − x, ∇ℓ(x)⟩| for each image."""
    return (loss_of(y)(logits_of(model, other)) - value - dot(other - x, gradient)).abs()
