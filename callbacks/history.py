"""The run as a table: one row an epoch."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from xrobust.report.history import Row, read_history, write_history


class History(Checkpoint):
    """Writes every value logged in an epoch to `<folder>/metrics.csv`, after each epoch.

    A resumed run drops the rows after the epoch that it goes on from. A value that was not measured in an epoch
    is an empty cell, not the value of an earlier one.

    It is a `Checkpoint` for its place: after the module has logged its epoch and, as it stands before it in the list
    of callbacks, before the last checkpoint is saved, so that no epoch to go on from lacks its row.
    """

    def __init__(self, folder: str):
        self.file = Path(folder) / "metrics.csv"
        self.rows: list[Row] = []
        self._seen: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rows = [row for row in read_history(self.file) if row["epoch"] < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning keeps the values of earlier epochs; a fresh value is a new tensor.
        metrics = dict(trainer.callback_metrics)
        fresh = {name: value.item() for name, value in metrics.items() if value is not self._seen.get(name)}
        self._seen = metrics
        self.rows.append({"epoch": trainer.current_epoch, **fresh})
        if trainer.is_global_zero:
            write_history(self.file, self.rows)
