"""FGSM with a random start, the inner maximisation of fast adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack, logits_of
from xrobust.attacks.losses import cross_entropy
from xrobust.errors import at_least
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class FGSMRS(Attack):
    """x_adv = Π(x' + s · ε · ascent(∇ₓ CE(f(x'), y))), x' uniform in B(x, ε) (Wong et al. 2020).

    Args:
        step: s, the step in units of ε, so that it follows ε (the paper: 1.25; 1 and below leave corners unreached).
        start_in_box: clip x' to the pixel range. The paper's algorithm does not, its code does on CIFAR-10. Where
            pixels lie at the end of the range, as on MNIST, it matters: from a clipped start the step always ends in
            a corner of the ball, as FGSM's, and overfits catastrophically as that does.
    """

    step: float = 1.25
    start_in_box: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0.0, step=self.step)

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        x_in = self.threat.random_start(x, generator, in_box=self.start_in_box).requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(logits_of(model, x_in), y).sum(), x_in)
        return x_in.detach() + self.step * self.threat.radius * self.threat.ascent(gradient)
