"""How far robust accuracy on training images is ahead of held-out images."""

from __future__ import annotations

from functools import partial

import pytorch_lightning as pl
from torch import Tensor

from callbacks.fixed_images import fixed_accuracy
from xrobust.attacks import Attack
from xrobust.defenses import RobustClassifier
from xrobust.errors import UserError, at_least

HELD_OUT = "val/robust_accuracy"


class RobustGap(pl.Callback):
    """Logs `train/robust_accuracy`, under the validation attack, and `val/train_val_robust_gap`, how much it exceeds
    `val/robust_accuracy`: the sign of robust overfitting (Rice et al. 2020).

    The training images are fixed, class-balanced and not augmented.

    Args:
        attack: that of `val/robust_accuracy`.
        images: how many training images.
        seed: of the attack's random streams.
    """

    def __init__(self, attack: Attack, images: int = 500, seed: int = 0):
        at_least("robust_gap", 1, images=images)
        self.attack = attack
        self.images = images
        self.seed = seed
        self._train: Tensor | None = None  # measured in this epoch

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if not trainer.sanity_checking:
            measure = partial(fixed_accuracy, trainer, pl_module, split="train", seed=self.seed)
            self._train = measure(self.attack, self.images)
            pl_module.log("train/robust_accuracy", self._train)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if self._train is None:
            return
        if HELD_OUT not in trainer.callback_metrics:
            raise UserError(f"callbacks.robust_gap needs {HELD_OUT}, which callbacks.robust_accuracy logs")
        pl_module.log("val/train_val_robust_gap", self._train - trainer.callback_metrics[HELD_OUT])
        self._train = None
