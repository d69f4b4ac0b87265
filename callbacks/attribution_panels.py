"""Pictures of the attributions, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl

from callbacks.validation_probe import check_explainable, validation_probe
from xrobust.attacks import Attack
from xrobust.attributions import Attribution
from xrobust.defenses import RobustClassifier
from xrobust.errors import at_least
from xrobust.explanation import panel_data
from xrobust.report.panel import save_panel


class AttributionPanels(pl.Callback):
    """The same validation images, clean and attacked, with their maps, after each epoch.

    Written to `<folder>/epoch_NNN.png` (and .npz, the numbers), and to each logger that takes images, as
    `panels/attributions`.

    Args:
        folder: where to.
        attributions: by name, the methods to draw.
        attack: makes the attacked images.
        images: how many, balanced over the classes, or all validation images if there are fewer.
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

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_explainable(trainer, pl_module, self.attributions)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        if trainer.sanity_checking or not trainer.is_global_zero or not self.attributions:
            return
        if epoch % self.every_n_epochs == 0 or epoch == last:
            probe = validation_probe(trainer, pl_module, self.images, self.attack, seed=self.seed)
            picture = save_panel(panel_data(probe, self.attributions), self.folder, epoch)
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):
                    logger.log_image("panels/attributions", [str(picture)], step=trainer.global_step)
