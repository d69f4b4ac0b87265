"""GloRo nets: training with an artificial class that stands for "not certified"."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.defenses.base import Loss, Schedule, mean_cross_entropy
from xrobust.defenses.lipschitz import LipschitzTraining, moved_logits
from xrobust.errors import at_least
from xrobust.schedules import Constant


class GloRo(LipschitzTraining):
    """min_θ E CE([z, z_⊥], y), z_⊥ = max_{i≠j} z_i + ε·K‖w_j − w_i‖₂, j = argmax z (Leino, Wang & Fredrikson 2021).

    Where a class beats ⊥, the image is certified at ε. Arguments as in `LipschitzTraining`.
    """

    def loss_on(self, logits: Tensor, slopes: Tensor, y: Tensor) -> Loss:
        bottom, certified = with_bottom(logits, slopes, self.eps)
        target = F.pad(y, (0, 1)) if y.is_floating_point() else y
        return Loss(mean_cross_entropy(bottom, target), {"clean": logits, "certified": certified})


class GloRoTRADES(LipschitzTraining):
    """min_θ E [CE(z, y) + λ·KL([softmax(z), 0] ‖ softmax([z, z_⊥]))] (Leino, Wang & Fredrikson 2021).

    The divergence is −log(1 − softmax([z, z_⊥])_⊥) = softplus(z_⊥ − log Σ_i e^{z_i}).

    Args:
        beta: λ ≥ 0.
        beta_schedule: share of the run that is done → factor of λ.

    Further arguments as in `LipschitzTraining`.
    """

    def __init__(self, *, beta: float = 2.0, beta_schedule: Schedule | None = None, **lipschitz: Any):
        super().__init__(**lipschitz)
        at_least("defense", 0.0, beta=beta)
        self.beta = beta
        self.beta_schedule = beta_schedule or Constant()

    def loss_on(self, logits: Tensor, slopes: Tensor, y: Tensor) -> Loss:
        bottom, certified = with_bottom(logits, slopes, self.eps)
        natural = mean_cross_entropy(logits, y)
        divergence = F.softplus(bottom[:, -1] - logits.logsumexp(1)).mean()
        value = natural + self.beta * self.beta_schedule(self.progress) * divergence
        return Loss(value, {"clean": logits, "certified": certified}, {"cross_entropy": natural, "kl": divergence})


def with_bottom(logits: Tensor, slopes: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """[z, z_⊥] (N, K + 1), and the logits as far as each class could gain on the predicted one (N, K)."""
    predicted = logits.argmax(1)
    moved = moved_logits(logits, slopes, predicted, eps)
    bottom = moved.scatter(1, predicted.unsqueeze(1), -torch.inf).amax(1, keepdim=True)
    return torch.cat([logits, bottom], 1), moved
