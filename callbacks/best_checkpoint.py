"""The checkpoint that is tested and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from callbacks.monitored import monitored
from callbacks.movable_checkpoint import MovableCheckpoint
from xrobust.errors import UserError


class BestCheckpoint(MovableCheckpoint):
    """Keeps the epoch that was best on held-out validation data, as `<folder>/best.ckpt`.

    Args:
        folder: where to.
        monitor: the quantity to maximise; none means the one that the defense names as its `selection`: robust
            accuracy, or clean accuracy for training without an adversary (where the most robust epoch is the least
            trained one).
    """

    def __init__(self, folder: str, monitor: str | None = None):
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.monitor = self.monitor or pl_module.selection  # type: ignore[assignment]
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.best_model_path and not Path(self.best_model_path).is_file():
            raise UserError(
                f"resume: {self.best_model_path}, the best epoch so far, is missing; put it back or begin anew"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.best_model_score is not None and self.monitor not in trainer.callback_metrics:
            return  # resumed, and not measured again yet
        with monitored("callbacks.best_checkpoint", self.monitor, trainer):
            super().on_train_epoch_end(trainer, pl_module)
