"""FGSM from a random neighbour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack
from xrobust.attacks.losses import cross_entropy
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator, normal_like


@dataclass(frozen=True, kw_only=True)
class RFGSM(Attack):
    """x_adv = Π(x' + (1 − ρ)ε · ascent(∇ₓ CE(f(x'), y))), x' = Π(x + ρε · ascent(n)) (Tramèr et al. 2018).

    n is standard normal; in Linf, ascent is the sign.

    Args:
        random_share: ρ in [0, 1], the share of the radius that the random step takes (the paper: 1/2).
    """

    random_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.random_share <= 1:
            raise UserError(f"RFGSM.random_share must lie in [0, 1], got {self.random_share}")

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        threat, random_step = self.threat, self.random_share * self.threat.radius
        noise = normal_like(x, generator).to(x.dtype)
        x_in = threat.project(x + random_step * threat.ascent(noise), x).requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(logits_of(model, x_in), y).sum(), x_in)
        return x_in.detach() + (threat.radius - random_step) * threat.ascent(gradient)
