"""Pictures of the attributions, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray

from xrobust.attacks import Attack
from xrobust.attributions import Attribution
from xrobust.defenses import RobustClassifier
from xrobust.errors import at_least
from xrobust.metrics import Probe
from xrobust.report.panel import save_panel


class AttributionPanels(pl.Callback):
    """The same validation images, clean and attacked, with their maps, after each epoch.

    Written to `<folder>/epoch_NNN.png` (and .npz, the numbers), and to each logger that takes images, as
    `panels/attributions`.

    Args:
        folder: where to.
        attributions: by name, the methods to draw.
        attack: makes the attacked images.
        images: how many, balanced over the classes.
        every_n_epochs: how often; the first and the last epoch are always drawn.
        seed: of the attack.
    """

    def __init__(
        self,
        folder: str,
        attributions: Mapping[str, Attribution],
        attack: Attack,
        images: int = 10,
        every_n_epochs: int = 1,
        seed: int = 0,
    ):
        at_least("attribution_panels", 1, images=images, every_n_epochs=every_n_epochs)
        self.folder = Path(folder)
        self.attributions = attributions
        self.attack = attack
        self.images = images
        self.every_n_epochs = every_n_epochs
        self.seed = seed

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        if trainer.sanity_checking or not trainer.is_global_zero or not self.attributions:
            return
        if epoch % self.every_n_epochs == 0 or epoch == last:
            picture = save_panel(self._draw(trainer, pl_module), self.folder, epoch)
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image("panels/attributions", [str(picture)], step=trainer.global_step)

    def _draw(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> dict[str, NDArray]:
        x, y, index = (t.to(pl_module.device) for t in trainer.datamodule.probe_set(self.images))  # type: ignore[attr-defined]
        first = next(iter(self.attributions.values()))
        probe = Probe(
            model=pl_module.model,
            x=x,
            y=y,
            index=index,
            method=first,
            threat=self.attack.threat,
            attack=self.attack,
            seed=self.seed,
        )
        data = {
            "images": probe.x,
            "adversarial": probe.adversarial,
            "labels": y,
            "predictions": probe.prediction,
            "adversarial_predictions": probe.logits_at(probe.adversarial).argmax(1),
        }
        for name, method in self.attributions.items():
            data[f"map/{name}"] = probe.using(method).map
            data[f"adversarial_map/{name}"] = probe.using(method).adversarial_map
        return {name: _numpy(value) for name, value in data.items()}


def _numpy(value: torch.Tensor) -> NDArray:
    array = value.detach().cpu().numpy()
    return array.astype(np.float32) if array.dtype == np.float64 else array
