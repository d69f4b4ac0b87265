"""The fast gradient sign method and its generalisation to other norms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack, logits_of
from xrobust.attacks.losses import cross_entropy
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class FGSM(Attack):
    """x_adv = Π(x + ε · ascent(∇ₓ CE(f(x), y))): one full step, no randomness (Goodfellow et al. 2015)."""

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        x_in = x.clone().requires_grad_()
        loss = cross_entropy(logits_of(model, x_in), y).sum()
        (gradient,) = torch.autograd.grad(loss, x_in)
        return x + self.threat.radius * self.threat.ascent(gradient)
