"""Accuracy under attack, in validation and test."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.attacks.base import require_misleading
from xrobust.data.split import balanced_choice
from xrobust.defenses import RobustClassifier
from xrobust.errors import at_least
from xrobust.export.result import AccuracyResult, images_protocol
from xrobust.metrics.accuracy import Accuracy
from xrobust.randomness import SampleStreams


class RobustAccuracy(pl.Callback):
    """Logs `val/robust_accuracy` and `test/robust_accuracy`: the share of samples that are right under attack.

    A sample counts only if both the image and a fresh prediction on the attack's result are right, so robust
    accuracy never exceeds clean accuracy. Each sample has a random stream of its own, keyed by its index: the
    result depends neither on the batch size nor on the number of processes, and not on the training's randomness.
    The test adds clean accuracy (of all test images) and robust accuracy (of those attacked), with their counts and
    protocol, to the module's `results`.

    Args:
        val_attack: after each epoch; cheap and fixed.
        test_attack: at the end; strong.
        val_images: attack only so many validation images, fixed and class-balanced; none means all of them.
        test_images: the same for the test set.
        seed: of the attacks' random streams.
    """

    def __init__(
        self,
        val_attack: Attack,
        test_attack: Attack,
        val_images: int | None = 1000,
        test_images: int | None = 1000,
        seed: int = 0,
    ):
        for name, images in (("val_images", val_images), ("test_images", test_images)):
            if images is not None:
                at_least("robust_accuracy", 1, **{name: images})
        require_misleading(val_attack, "robust_accuracy.val_attack")
        require_misleading(test_attack, "robust_accuracy.test_attack")
        self.attacks = {"val": val_attack, "test": test_attack}
        self.images = {"val": val_images, "test": test_images}
        self.seed = seed
        self.robust = Accuracy()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(pl_module, "val", trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin(pl_module, "test", trainer.test_dataloaders)

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
        data = getattr(trainer, "datamodule", None)
        images = images_protocol("test", data.identity("test") if data else None)
        protocol = {**images, "attack": self.attacks["test"].describe(), "seed": self.seed}
        pl_module.results += [
            AccuracyResult("test/clean_accuracy", *pl_module.test_accuracy.counts(), images),
            AccuracyResult("test/robust_accuracy", *self.robust.counts(), protocol),
        ]

    def _begin(self, pl_module: pl.LightningModule, stage: str, loader: Any) -> None:
        count = self.images[stage]
        self._chosen = torch.ones(len(loader.labels), dtype=torch.bool)
        if count is not None:
            self._chosen[:] = False
            self._chosen[balanced_choice(loader.labels.cpu(), count, seed=0)] = True
        self.robust.to(pl_module.device)
        self.robust.reset()

    def _update(self, pl_module: RobustClassifier, stage: str, batch: tuple[Tensor, Tensor], first: int) -> None:
        index = first + self._chosen[first : first + len(batch[0])].nonzero().flatten()
        if not len(index):
            return
        x, y = (t[(index - first).to(t.device)] for t in batch)
        streams = SampleStreams(self.seed, index.tolist())
        x_adv = self.attacks[stage](pl_module.model, x, y, generator=streams)
        with torch.no_grad():
            right = pl_module.predict(x) == y
            self.robust.update(right & (pl_module.predict(x_adv) == y))
