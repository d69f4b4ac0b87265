"""The image resembles the gradient of its class more than that of its rival."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.frame import hard_labels, logits_of
from xrobust.randomness import Generator
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import cosine, leaf, logit_of


@dataclass(frozen=True, kw_only=True)
class ART(Regularizer):
    """R(x) = log(1 + exp(−(d⁻ − d⁺))), d± = 1 − cos(x, ∇ₓ f_±), + the label, − its best rival (Singh et al. 2020).

    The paper takes it, and the cross entropy, at the point of the ball that raises it most: `images="adversarial"` and
    `PenaltyAscent` as the training attack. An image whose two gradients vanish pays log 2.
    """

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        label = hard_labels(y)
        rival = logits.scatter(1, label[:, None], -torch.inf).argmax(1)
        x_in = leaf(x)
        output = logits_of(model, x_in)
        own, other = (
            cosine(x, torch.autograd.grad(logit_of(classes)(output).sum(), x_in, create_graph=True)[0])
            for classes in (label, rival)
        )
        return F.softplus(other - own)  # d⁺ − d⁻
