"""Losses between adversarial and IBP training: MTL-IBP, CC-IBP, Exp-IBP."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.certification import interval_lower_bound
from xrobust.defenses.adversarial import check_share
from xrobust.defenses.certified import Batch, CertifiedTraining, Robust, certified_share, worst_case_loss


class ExpressiveTraining(CertifiedTraining):
    """R between the loss at an adversarial example (α = 0) and that of interval arithmetic (α = 1), growing with α.

    De Palma et al. 2024, "Expressive losses for verified robustness via convex combinations". A subclass writes
    `combined`.

    Args:
        attack: finds the example x*.
        alpha: α in [0, 1]. Tuned for MTL-IBP: 0.02 for MNIST at 0.1, 0.5 at 0.3; 0.01 for CIFAR-10 at 2/255, 0.6 at
            8/255.
        certified: as in `CertifiedTraining`.
    """

    def __init__(self, *, attack: Attack, alpha: float = 0.02, **certified: Any):
        super().__init__(attack=attack, **certified)
        self.alpha = check_share("alpha", alpha)

    def robust(self, batch: Batch) -> Robust:
        assert batch.x_adv is not None
        logits = batch.logits_at(batch.x_adv)
        bounds = batch.bounds(batch.box)
        lower = interval_lower_bound(bounds, batch.forms)
        losses = self.combined(logits, lower, batch)
        return Robust(losses, bounds, certified_share(lower), {"adversarial": logits})

    @abstractmethod
    def combined(self, logits: Tensor, lower: Tensor, batch: Batch) -> Tensor:
        """The losses (N,), given f(x*), (N, K), and lower bounds of the margins, (N, K − 1)."""


class MTLIBP(ExpressiveTraining):
    """R = (1 − α) · CE(f(x*), y) + α · CE°(m). Arguments as in `ExpressiveTraining`."""

    def combined(self, logits: Tensor, lower: Tensor, batch: Batch) -> Tensor:
        adversarial = F.cross_entropy(logits, batch.y, reduction="none")
        return (1 - self.alpha) * adversarial + self.alpha * worst_case_loss(lower)


class CCIBP(ExpressiveTraining):
    """R = CE°((1 − α) · m* + α · m), m* the margins z_y − z_j at x*. Arguments as in `ExpressiveTraining`."""

    def combined(self, logits: Tensor, lower: Tensor, batch: Batch) -> Tensor:
        adversarial = (batch.forms * logits.unsqueeze(1)).sum(2)
        return worst_case_loss((1 - self.alpha) * adversarial + self.alpha * lower)


class ExpIBP(ExpressiveTraining):
    """R = CE(f(x*), y)^(1 − α) · CE°(m)^α, sample by sample. Arguments as in `ExpressiveTraining`."""

    def combined(self, logits: Tensor, lower: Tensor, batch: Batch) -> Tensor:
        adversarial = F.cross_entropy(logits, batch.y, reduction="none")
        return _power(adversarial, 1 - self.alpha) * _power(worst_case_loss(lower), self.alpha)


def _power(losses: Tensor, exponent: float) -> Tensor:
    """losses^exponent with a finite gradient at a loss that has underflowed to 0."""
    return losses.clamp(min=torch.finfo(losses.dtype).eps).pow(exponent)
