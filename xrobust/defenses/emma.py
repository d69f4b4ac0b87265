"""EMMA: margins that are moved by no more than each class needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xrobust.defenses.adversarial import check_share
from xrobust.defenses.base import Loss, mean_cross_entropy
from xrobust.defenses.lipschitz import LipschitzTraining


class EMMA(LipschitzTraining):
    """min_θ E CE(z_i + ε_i·K‖w_y − w_i‖₂, y), ε_i = clip((z_y − z_i) / (ε·K‖w_y − w_i‖₂), least, 1)·ε (Hu et al. 2023).

    ε_i is a constant in the derivative: a class that is not yet beaten is moved to a tie and no further, so that all
    classes that come near push, not the nearest one alone.

    Args:
        least: the smallest share of ε, in [0, 1].

    Further arguments as in `LipschitzTraining`.
    """

    def __init__(self, *, least: float = 0.01, **lipschitz: Any):
        super().__init__(**lipschitz)
        self.least = check_share("least", least)

    def loss_on(self, logits: Tensor, slopes: Tensor, y: Tensor) -> Loss:
        if y.is_floating_point():
            raise ValueError("a margin needs one label for each image")
        most = self.eps * slopes[y]
        with torch.no_grad():
            gap = logits.gather(1, y.unsqueeze(1)) - logits
            share = (gap / most.clamp(min=torch.finfo(most.dtype).tiny)).clamp(self.least, 1)
        value = mean_cross_entropy(logits + share * most, y)
        return Loss(value, {"clean": logits, "certified": logits + most})
