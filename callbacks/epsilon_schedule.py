"""The radius of the training attack over the run."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytorch_lightning as pl

from xrobust.defenses import RobustClassifier
from xrobust.defenses.base import share_done


class EpsilonSchedule(pl.Callback):
    """ε(t) = factor(t) · ε, set before every training step and logged as `train/eps`.

    Works with every defense that has an attack; without one there is nothing to schedule. Validation and test
    attacks keep the full radius.

    Args:
        schedule: share of the run that is done, in [0, 1] → factor.
    """

    def __init__(self, schedule: Callable[[float], float]):
        self.schedule = schedule

    def on_fit_start(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        self._full = None if pl_module.attack is None else pl_module.attack.threat.fraction
        self._factor: float | None = None

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: RobustClassifier, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.attack is None or self._full is None:
            return
        factor = self.schedule(share_done(trainer))
        if factor != self._factor:
            self._factor = factor
            pl_module.attack = pl_module.attack.with_eps(self._full * Fraction(factor))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if pl_module.attack is not None:
            pl_module.log("train/eps", pl_module.attack.threat.radius)
