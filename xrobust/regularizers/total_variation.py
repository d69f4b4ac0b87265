"""Smooth saliency maps."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from xrobust.attributions import Attribution, Gradient
from xrobust.frame import hard_labels
from xrobust.randomness import Generator
from xrobust.regularizers.attribution_change import check_differentiable
from xrobust.regularizers.base import Regularizer


@dataclass(frozen=True, kw_only=True)
class TotalVariation(Regularizer):
    """R(x) = Σ(|m_{i+1,j} − m_{i,j}| + |m_{i,j+1} − m_{i,j}|) / Σm, m = Σ_c |a_c| (after Rudin, Osher & Fatemi 1992).

    a is the attribution of the label's logit. Free of the map's scale, so that it cannot be lowered by shrinking
    gradients; in [0, 4]. An image with a zero map pays nothing.

    Args:
        attribution: a, differentiable.
    """

    attribution: Attribution = field(default_factory=Gradient)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_differentiable(type(self).__name__, self.attribution)

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        maps = self.attribution(model, x, hard_labels(y), create_graph=True, generator=generator)
        relevance = maps.abs().sum(1)
        down, right = relevance.diff(dim=1), relevance.diff(dim=2)
        total = relevance.sum((1, 2))
        return (down.abs().sum((1, 2)) + right.abs().sum((1, 2))) / total.where(total > 0, 1)
