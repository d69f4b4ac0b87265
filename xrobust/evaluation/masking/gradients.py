"""Input gradients that an attack cannot follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attacks.losses import cross_entropy
from xrobust.evaluation.masking.base import Check
from xrobust.evaluation.masking.subject import Subject
from xrobust.frame import logits_of, untouched


@dataclass(frozen=True, kw_only=True)
class UnusableGradients(Check):
    """Share of samples where ∇ₓ CE is zero, not finite or absent, at x or at a random point of its ball.

    (Pintor et al. 2022, unavailable gradients; AutoAttack's flag for zero gradients.)
    """

    advice: ClassVar[str] = (
        "Gradient attacks stand still at such points. If the logits are very large, attack with a loss that does not "
        "saturate (apgd_dlr, autoattack_standard); if a layer rounds or detaches, replace its backward pass (BPDA, "
        "Athalye et al. 2018) or use attack=square; if they are not finite, look for √0 or log 0."
    )
    reference: ClassVar[str] = "Athalye et al. 2018; Croce & Hein 2020; Pintor et al. 2022 (unavailable gradients)"

    def measure(self, subject: Subject) -> tuple[float, str]:
        start = subject.threat.random_start(subject.x, subject.streams())
        bad = _unusable(subject.model, subject.x, subject.y) | _unusable(subject.model, start, subject.y)
        share = bad.double().mean().item()
        return share, f"the input gradients of {share:.1%} of {len(bad)} samples are zero, not finite or absent"


def _unusable(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with untouched(model, x):
        x_in = x.detach().clone().requires_grad_()
        loss = cross_entropy(logits_of(model, x_in), y).sum()
        gradient = torch.autograd.grad(loss, x_in, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None:
        return torch.ones(len(x), dtype=torch.bool, device=x.device)
    size = gradient.flatten(1).abs().amax(1)
    return ~(size > 0) | ~gradient.flatten(1).isfinite().all(1)
