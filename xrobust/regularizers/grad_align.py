"""Gradient alignment within the ball."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.randomness import Generator
from xrobust.regularizers.ball import BallRegularizer
from xrobust.regularizers.gradients import cosine, input_gradient, loss_of


@dataclass(frozen=True, kw_only=True)
class GradAlign(BallRegularizer):
    """R(x) = 1 − cos(∇ₓℓ(x), ∇ₓℓ(x + η)), η uniform in the ball (Andriushchenko & Flammarion 2020).

    An image whose gradient vanishes pays nothing.

    Args:
        threat: the ball.
        detach_clean: let gradients flow through ∇ₓℓ(x + η) only, as the published code does.
    """

    detach_clean: bool = False

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        noisy = self.threat.random_start(x, generator)
        return misalignment(model, x, noisy, y, detach_clean=self.detach_clean)


def misalignment(model: nn.Module, x: Tensor, other: Tensor, y: Tensor, *, detach_clean: bool = False) -> Tensor:
    """1 − cos(∇ℓ(x), ∇ℓ(x')) for each image, in the model's present mode: (N, C, H, W) twice → (N,)."""
    here = input_gradient(model, x, loss_of(y), create_graph=not detach_clean)
    return 1 - cosine(here, input_gradient(model, other, loss_of(y)))
