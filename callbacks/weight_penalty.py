"""A penalty on the size of the weights."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from xrobust.errors import at_least


class L1WeightPenalty(pl.Callback):
    """L ↦ L + λ Σ_l ‖w_l‖₁ over the weight tensors l of more than one dimension, for any defense's loss L.

    Its subgradient λ sign(w) (0 where w is 0) is added once an optimiser step, after the gradients of accumulated
    batches are summed and before they are clipped. Biases and the scales of normalisation layers are left alone. Logs
    `train/weight_l1`, Σ_l ‖w_l‖₁ at the end of each epoch.

    Args:
        weight: λ ≥ 0.
    """

    def __init__(self, weight: float = 1e-5):
        at_least("l1_weights", 0.0, weight=weight)
        self.weight = weight

    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        for w in _weights(pl_module):
            if w.grad is not None:
                w.grad.add_(w.sign(), alpha=self.weight)

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("train/weight_l1", torch.stack([w.abs().sum() for w in _weights(pl_module)]).sum())


def _weights(pl_module: pl.LightningModule) -> list[Tensor]:
    return [w for w in pl_module.parameters() if w.requires_grad and w.dim() > 1]
