"""The size of the Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.softplus import smoothed
from xrobust.errors import UserError, at_least
from xrobust.randomness import Generator, uniform_like
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import check_score, input_gradient, leaf, score_of, squared_norm


@dataclass(frozen=True, kw_only=True)
class HessianNorm(Regularizer):
    """R(x) = ‖H‖_F², H = ∇²ₓ s(f(x)), by Hutchinson's estimate E ‖H v‖², v_i = ±1 (Dombrowski et al. 2022).

    A ReLU network has H = 0 almost everywhere (for s a logit), so that softplus_β(u) stands in the place of ReLU(u);
    networks without ReLU are regularised as they are.

    Args:
        of: s, the "logit" of the label, the "loss" or the "margin".
        probes: how many v for each image, ≥ 1.
        softplus: β > 0; none leaves ReLU.
    """

    of: str = "logit"
    probes: int = 1
    softplus: float | None = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        check_score(f"{name}.of", self.of)
        at_least(name, 1, probes=self.probes)
        if self.softplus is not None and not self.softplus > 0:
            raise UserError(f"{name}.softplus must be above 0 or none, got {self.softplus!r}")

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        x_in = leaf(x)
        with smoothed(model, self.softplus):
            gradient = input_gradient(model, x_in, score_of(self.of, y))
        signs = uniform_like(x.new_empty(len(x), self.probes, *x.shape[1:]), generator) < 0.5
        probes = torch.where(signs, -1.0, 1.0).to(x.dtype).transpose(0, 1)
        # 0 · x gives the gradient of a linear network, which does not depend on x, the derivative zero.
        products = [
            torch.autograd.grad((gradient * v).sum() + 0 * x_in.sum(), x_in, create_graph=True)[0] for v in probes
        ]
        return torch.stack([squared_norm(product) for product in products]).mean(0)
