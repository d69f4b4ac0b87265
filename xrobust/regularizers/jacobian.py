"""The size of the whole Jacobian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.frame import logits_of
from xrobust.randomness import Generator, normal_like
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import leaf, squared_norm, unit


@dataclass(frozen=True, kw_only=True)
class JacobianNorm(Regularizer):
    """R(x) = ½ ‖J‖_F², J = ∂f/∂x, exactly or by random projections (Hoffman, Roberts & Yaida 2019).

    For v uniform on the unit sphere of ℝᴷ, E K ‖Jᵀv‖² = ‖J‖_F²; the estimate is the mean over independent v.

    Args:
        projections: how many v for each image, ≥ 1, each a backward pass; none for the exact norm, with K of them.
    """

    projections: int | None = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.projections is not None:
            at_least(type(self).__name__, 1, projections=self.projections)

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        x_in = leaf(x)
        output = logits_of(model, x_in)
        rows = [
            torch.autograd.grad((output * direction).sum(), x_in, create_graph=True)[0]
            for direction in self._directions(output, generator)
        ]
        return torch.stack([squared_norm(row) for row in rows]).sum(0) / 2

    def _directions(self, logits: Tensor, generator: Generator) -> Tensor:
        """Directions w, (n, N, K), for which ‖J‖_F² is Σ ‖Jᵀw‖², or is so on average."""
        count, classes = logits.shape
        if self.projections is None:
            return torch.eye(classes, device=logits.device, dtype=logits.dtype)[:, None].expand(-1, count, -1)
        drawn = normal_like(logits.new_empty(count, self.projections, classes), generator).to(logits.dtype)
        spheres = unit(drawn.flatten(0, 1)).view_as(drawn)
        return (spheres * (classes / self.projections) ** 0.5).transpose(0, 1)
