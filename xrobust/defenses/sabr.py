"""SABR: small boxes around adversarial examples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.certification import Box, interval_lower_bound
from xrobust.defenses.adversarial import check_share
from xrobust.defenses.certified import Batch, CertifiedTraining, Robust, worst_case_loss


class SABR(CertifiedTraining):
    """R = CE°(m), m by interval arithmetic on the box of radius τε around an adversarial example (Müller et al. 2023).

    The example is moved so that the box lies in the ball: x' = clip(x*, l + τε, u − τε), where [l, u] is the ball in
    the pixel range, with which the box is intersected. τ = 1 is IBP; τ = 0 is adversarial training.

    Args:
        attack: finds x*.
        tau: τ in [0, 1]. Published 0.4 for MNIST at 0.1, 0.1 for CIFAR-10 at 2/255, and 0.7 to 0.9 at large radii.
        certified: as in `CertifiedTraining`.
    """

    def __init__(self, *, attack: Attack, tau: float = 0.4, **certified: Any):
        super().__init__(attack=attack, **certified)
        self.tau = check_share("tau", tau)

    def robust(self, batch: Batch) -> Robust:
        bounds = batch.bounds(small_box(batch, self.tau))
        return Robust(worst_case_loss(interval_lower_bound(bounds, batch.forms)), bounds)


def small_box(batch: Batch, tau: float) -> Box:
    """The box of radius τε, inside the ball, as near to the adversarial example as that allows."""
    assert batch.x_adv is not None
    lower, upper, radius = batch.box.lower, batch.box.upper, tau * batch.threat.radius
    # At the ends of the pixel range the ball may be too narrow for both sides; the intersection is what is left.
    centre: Tensor = torch.minimum(torch.maximum(batch.x_adv, lower + radius), upper - radius)
    return Box(torch.maximum(centre - radius, lower), torch.minimum(centre + radius, upper))
