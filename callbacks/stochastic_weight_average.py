"""The mean of the weights at the end of a run's last epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pytorch_lightning as pl
from torch.nn.modules.batchnorm import _BatchNorm

from callbacks.weight_average import WeightAverage, copy_of
from xrobust.defenses import RobustClassifier
from xrobust.defenses.rehearsal import rehearsal
from xrobust.errors import UserError, at_least

PLACE = "swa"


class StochasticWeightAverage(WeightAverage):
    """w̄ = the mean of the weights at the end of every cycle, from a share of the run on (SWA, Izmailov et al. 2018).

    From there on the learning rate falls linearly within each cycle, or stays constant; before, it follows the
    optimiser's schedule. Chen et al. 2021 found the average to overfit less in adversarial training.

    The statistics of batch norm are those of the averaged weights: after each average they are estimated anew, as the
    mean over training batches that go through the defense's own loss, with its attack, so that the images are the ones
    that update them in training. Without batch norm that costs nothing; with it, the forward passes and the attacks of
    `batches` batches an epoch.

    Args:
        start: share of the run before the first cycle, in [0, 1).
        cycle_epochs: epochs of a cycle, ≥ 1.
        learning_rate: at the beginning of a cycle, as a share of the optimiser's.
        final_learning_rate: at its end; none means that it is constant.
        batches: how many training batches the statistics of batch norm are estimated on, for each process.
    """

    def __init__(
        self,
        start: float = 0.75,
        cycle_epochs: int = 1,
        learning_rate: float = 0.1,
        final_learning_rate: float | None = None,
        batches: int = 50,
    ):
        super().__init__()
        final = learning_rate if final_learning_rate is None else final_learning_rate
        at_least(PLACE, 0.0, start=start, learning_rate=learning_rate, final_learning_rate=final)
        at_least(PLACE, 1, cycle_epochs=cycle_epochs, batches=batches)
        if not start < 1:
            raise UserError(f"{PLACE}.start must be below 1, got {start}")
        self.start = start
        self.cycle_epochs = cycle_epochs
        self.factors = (float(learning_rate), float(final))
        self.batches = batches

    def setup(self, trainer: pl.Trainer, pl_module: RobustClassifier, stage: str) -> None:  # type: ignore[override]
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        epochs = trainer.max_epochs or 0
        self.first_epoch = math.ceil(self.start * epochs)
        if epochs - self.first_epoch < self.cycle_epochs:
            raise UserError(
                f"{PLACE}.cycle_epochs={self.cycle_epochs} does not fit behind {PLACE}.start={self.start} "
                f"in trainer.max_epochs={trainer.max_epochs}"
            )
        self._schedule = pl_module.schedule
        start, length = self.first_epoch / epochs, self.cycle_epochs / epochs
        pl_module.schedule = Cycles(self._schedule, start, length, *self.factors)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        pl_module.schedule = self._schedule

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: RobustClassifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = trainer.current_epoch + 1 - self.first_epoch
        if trainer.is_last_batch and done > 0 and done % self.cycle_epochs == 0:
            self.add(pl_module.model, 1 / (self.count + 1))
            if any(isinstance(module, _BatchNorm) for module in pl_module.model.modules()):
                self._show(pl_module.model)
                estimate_statistics(trainer, pl_module, self.batches)
                self._average = copy_of(pl_module.model)
                self._hide(pl_module.model)


@dataclass(frozen=True)
class Cycles:
    """Another schedule until t = `start`, then linear from `high` to `low` in every `length` of the run."""

    before: Callable[[float], float]
    start: float
    length: float
    high: float
    low: float

    def __call__(self, progress: float) -> float:
        if progress < self.start:
            return self.before(progress)
        cycle = round((progress - self.start) / self.length, 9)  # so that a cycle does not begin at 0.999…
        return self.high + (self.low - self.high) * (cycle % 1)


def estimate_statistics(trainer: pl.Trainer, pl_module: RobustClassifier, batches: int) -> None:
    """Set batch norm's statistics to their mean over the training losses of some batches, and over the processes."""
    norms = [m for m in pl_module.model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
    loader.set_epoch(trainer.current_epoch)
    with rehearsal(pl_module, keep_statistics=False), trainer.precision_plugin.train_step_context():
        for x, y in islice(loader, batches):
            pl_module.training_loss(x, y)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        for statistic in (norm.running_mean, norm.running_var):
            assert statistic is not None  # they are tracked
            statistic.copy_(trainer.strategy.reduce(statistic.clone(), reduce_op="mean"))
