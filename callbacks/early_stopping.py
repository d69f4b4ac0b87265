"""The end of training when nothing improves."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning import callbacks

from callbacks.monitored import monitored


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, with Lightning's arguments; a monitor that nobody logs is a mistake in one sentence."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._missing(trainer):
            return
        with monitored("callbacks.early_stopping", self.monitor, trainer):
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._missing(trainer):
            return
        with monitored("callbacks.early_stopping", self.monitor, trainer):
            super().on_validation_end(trainer, pl_module)

    def _missing(self, trainer: pl.Trainer) -> bool:
        """Whether the run was resumed and has not measured the quantity again yet."""
        return bool(self.best_score.isfinite()) and self.monitor not in trainer.callback_metrics
