"""VarGrad."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.smooth_grad import SmoothGrad
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class VarGrad(SmoothGrad):
    """a = (1/n) Σ_k (g_k − ḡ)², g_k = ∇ₓ s(f(x + σ·ξ_k)), ξ_k ~ N(0, I) (Adebayo et al. 2018).

    Not signed: a ≥ 0, and zero where the gradient does not change.

    Args:
        sigma: σ ≥ 0, the standard deviation of the noise, relative to the pixel range [0, 1].
        samples: n ≥ 1, noisy copies of each image.
        seed: of the noise when the call gives no generator.
    """

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        # Deviations from one of the gradients: the variance is the same, and large gradients do not cancel.
        origin, total, squares = None, torch.zeros_like(x), torch.zeros_like(x)
        for gradients in self.noisy_gradients(model, x, score, create_graph, generator):
            origin = gradients[0].detach() if origin is None else origin
            deviation = gradients - origin
            total = total + deviation.sum(0)
            squares = squares + deviation.square().sum(0)
        return (squares / self.samples - (total / self.samples).square()).clamp(min=0)
