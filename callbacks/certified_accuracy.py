"""Certified accuracy, in validation and test."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from xrobust.certification import Certifier
from xrobust.defenses import RobustClassifier
from xrobust.errors import at_least
from xrobust.export.result import AccuracyResult, images_protocol
from xrobust.metrics.accuracy import Accuracy
from xrobust.randomness import SampleStreams


class CertifiedAccuracy(pl.Callback):
    """Logs `val/certified_accuracy` and `test/certified_accuracy`: the share of samples that no image of the threat
    model can make wrong, as far as the certifier can prove.

    A lower bound of the true robust accuracy, as accuracy under an attack is an upper one. Images are fixed and
    class-balanced, and each sample has a random stream of its own; the processes share them out. The test adds the
    count and its protocol to the module's `results`.

    Args:
        certifier: which bounds.
        val_images, test_images: so many; none means all of them.
        every_n_epochs: of validation; the last epoch is always measured.
        seed: of attacks that look for counter-examples.
    """

    def __init__(
        self,
        certifier: Certifier,
        val_images: int | None = 200,
        test_images: int | None = 500,
        every_n_epochs: int = 1,
        seed: int = 0,
    ):
        for name, images in (("val_images", val_images), ("test_images", test_images)):
            if images is not None:
                at_least("certified_accuracy", 1, **{name: images})
        at_least("certified_accuracy", 1, every_n_epochs=every_n_epochs)
        self.certifier = certifier
        self.images = {"validation": val_images, "test": test_images}
        self.every_n_epochs = every_n_epochs
        self.seed = seed

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if last or trainer.current_epoch % self.every_n_epochs == 0:
            pl_module.log("val/certified_accuracy", self._measured(trainer, pl_module, "validation").compute())

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        accuracy = self._measured(trainer, pl_module, "test")
        pl_module.log("test/certified_accuracy", accuracy.compute())
        images = images_protocol("test", trainer.datamodule.identity("test"))  # type: ignore[attr-defined]
        protocol = {**images, "certifier": self.certifier.describe(), "seed": self.seed}
        pl_module.results.append(AccuracyResult("test/certified_accuracy", *accuracy.counts(), protocol))

    def _measured(self, trainer: pl.Trainer, pl_module: RobustClassifier, split: str) -> Accuracy:
        """The share of certified samples over all processes."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        there = data.summary()[split]
        x, y, index = data.probe_set(min(self.images[split] or there, there), split=split)
        rows = torch.arange(len(x))[trainer.global_rank :: trainer.world_size]
        accuracy = Accuracy().to(pl_module.device)
        streams = SampleStreams(self.seed, index[rows].tolist())
        x, y = x[rows].to(pl_module.device), y[rows].to(pl_module.device)
        accuracy.update(self.certifier.certify(pl_module.model, x, y, generator=streams).certified)
        return accuracy
