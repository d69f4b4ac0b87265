"""Robust attribution regularisation: the integrated gradients from the image to its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.attributions import FixedImages, IntegratedGradients
from xrobust.errors import at_least
from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.regularizers.ball import WorstCase
from xrobust.regularizers.gradients import l1_norm, loss_of


@dataclass(frozen=True, kw_only=True)
class IGNorm(WorstCase):
    """IG-NORM: R(x) = max_{x' ∈ B} ‖IG^ℓ(x → x')‖₁ (Chen et al. 2019).

    IG^ℓ(x → x') = (x' − x) ⊙ ∫₀¹ ∇ℓ(x + α(x' − x)) dα, the loss's integrated gradients from the image to its neighbour.
    The points of a path go through the network in one batch. Gauss–Legendre quadrature needs few of them; the paper
    takes the mean over 50.

    Args:
        points: of the quadrature in the penalty, ≥ 1.
        attack_points: of the quadrature in the search for x', ≥ 1.
        rule: the quadrature, "gauss_legendre" or "riemann_midpoint".
        threat, steps, step_size: of the search for x'.
    """

    points: int = 6
    attack_points: int = 3
    rule: str = "gauss_legendre"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 1, points=self.points, attack_points=self.attack_points)
        IntegratedGradients(rule=self.rule)  # which refuses an unknown one

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        found = self.worst(model, lambda point: self._value(model, x, point, y, self.attack_points), x, generator)
        return self._value(model, x, found, y, self.points)

    def _value(self, model: nn.Module, x: Tensor, other: Tensor, y: Tensor, points: int) -> Tensor:
        """What is large at the worst neighbour: (N,)."""
        method = IntegratedGradients(
            steps=points, rule=self.rule, baseline=FixedImages(x), batch_size=max(1, points * len(x))
        )
        return l1_norm(method(model, other, loss_of(y), create_graph=True))


@dataclass(frozen=True, kw_only=True)
class IGSumNorm(IGNorm):
    """IG-SUM-NORM: R(x) = max_{x' ∈ B} [ℓ(x') − ℓ(x) + β ‖IG^ℓ(x → x')‖₁] (Chen et al. 2019).

    By completeness ℓ(x') − ℓ(x) is the sum of the attribution. With weight 1 on top of CE(f(x), y) the loss is that of
    the paper, CE(f(x'), y) + β ‖IG‖₁.

    Args:
        beta: β ≥ 0.
        points, attack_points, rule, threat, steps, step_size: as in `IGNorm`.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0.0, beta=self.beta)

    def _value(self, model: nn.Module, x: Tensor, other: Tensor, y: Tensor, points: int) -> Tensor:
        loss = loss_of(y)
        rise = loss(logits_of(model, other)) - loss(logits_of(model, x))
        return rise + self.beta * super()._value(model, x, other, y, points)
