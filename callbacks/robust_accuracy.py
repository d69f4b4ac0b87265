"""Accuracy under attack, in validation and test."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.defenses import RobustClassifier
from xrobust.export.result import AccuracyResult
from xrobust.metrics.accuracy import Accuracy
from xrobust.randomness import SampleStreams


class RobustAccuracy(pl.Callback):
    """Logs `val/robust_accuracy` and `test/robust_accuracy`: the share of samples that are right under attack.

    A sample counts only if both the image and a fresh prediction on the attack's result are right, so robust
    accuracy never exceeds clean accuracy. Each sample has a random stream of its own, keyed by its index: the
    result depends neither on the batch size nor on the number of processes, and not on the training's randomness.
    The test adds both accuracies with their counts and protocol to the module's `results`.

    Args:
        val_attack: for each validation batch; cheap and fixed.
        test_attack: for the test set; strong.
        seed: of the attacks' random streams.
    """

    def __init__(self, val_attack: Attack, test_attack: Attack, seed: int = 0):
        self.attacks = {"val": val_attack, "test": test_attack}
        self.seed = seed
        self.clean, self.robust = Accuracy(), Accuracy()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset(pl_module)

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset(pl_module)

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: RobustClassifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._update(pl_module, "val", batch, trainer.val_dataloaders.first_index(batch_idx))  # type: ignore[union-attr]

    def on_test_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: RobustClassifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._update(pl_module, "test", batch, trainer.test_dataloaders.first_index(batch_idx))  # type: ignore[union-attr]

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("val/robust_accuracy", self.robust.compute(), prog_bar=True)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        pl_module.log("test/robust_accuracy", self.robust.compute())
        protocol = {"split": "test", "attack": self.attacks["test"].describe(), "seed": self.seed}
        pl_module.results += [
            AccuracyResult("test/clean_accuracy", *self.clean.counts(), {"split": "test"}),
            AccuracyResult("test/robust_accuracy", *self.robust.counts(), protocol),
        ]

    def _reset(self, pl_module: pl.LightningModule) -> None:
        for metric in (self.clean, self.robust):
            metric.to(pl_module.device)
            metric.reset()

    def _update(self, pl_module: RobustClassifier, stage: str, batch: tuple[Tensor, Tensor], first: int) -> None:
        x, y = batch
        streams = SampleStreams(self.seed, range(first, first + len(x)))
        x_adv = self.attacks[stage](pl_module.model, x, y, generator=streams)
        with torch.no_grad():
            right = pl_module.predict(x) == y
            self.clean.update(right)
            self.robust.update(right & (pl_module.predict(x_adv) == y))
