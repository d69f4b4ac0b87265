"""Averages of the weights over training."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn

from xrobust.defenses import RobustClassifier
from xrobust.errors import UserError, at_least


class WeightAverage(pl.Callback):
    """Trains the weights and shows their average: in validation, in the `state_dict` of every checkpoint, so in what is
    selected, tested and exported, and after training.

    Averaged are all parameters and all buffers of floating point, such as batch norm's statistics; other buffers are
    copied. A checkpoint holds the weights in training beside the average, and a resumed run goes on with both. Until
    something has been averaged, the weights in training are shown.
    """

    def __init__(self) -> None:
        self.count = 0  # how often something was averaged
        self._average: dict[str, Tensor] = {}
        self._training: dict[str, Tensor] = {}  # the weights in training, while the model shows the average

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        averages = [type(callback).__name__ for callback in trainer.callbacks if isinstance(callback, WeightAverage)]  # type: ignore[attr-defined]
        if len(averages) > 1:
            raise UserError(f"callbacks may hold one average of the weights, got {' and '.join(averages)}")
        self.count, self._average, self._training = 0, {}, {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._average = {name: tensor.to(pl_module.device) for name, tensor in self._average.items()}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if trainer.state.fn == "fit":
            self._show(pl_module.model)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if trainer.state.fn == "fit":
            self._hide(pl_module.model)

    def on_train_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        self._show(pl_module.model)

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: RobustClassifier, checkpoint: dict[str, Any]
    ) -> None:
        if self.count:
            training = self._training or pl_module.model.state_dict()
            checkpoint["weight_average"] = {"count": self.count, "training": training}
            checkpoint["state_dict"].update({f"model.{name}": tensor for name, tensor in self._average.items()})

    def on_load_checkpoint(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: RobustClassifier, checkpoint: dict[str, Any]
    ) -> None:
        saved = checkpoint.get("weight_average")
        if trainer.state.fn == "fit" and saved:
            self.count = saved["count"]
            self._average = copy_of(pl_module.model)  # which has been loaded
            pl_module.model.load_state_dict(saved["training"])

    def add(self, model: nn.Module, share: float) -> None:
        """average ← average + share · (weights − average); the first time, average ← weights."""
        if not self.count:
            self._average = copy_of(model)
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self._average[name].lerp_(tensor, share)
            else:
                self._average[name].copy_(tensor)
        self.count += 1

    def _show(self, model: nn.Module) -> None:
        if self.count:
            self._training = copy_of(model)
            model.load_state_dict(self._average)

    def _hide(self, model: nn.Module) -> None:
        if self._training:
            model.load_state_dict(self._training)
            self._training = {}


class ExponentialMovingAverage(WeightAverage):
    """w̄_t = Σ_{i ≤ t} d^{t−i} w_i / Σ_{i ≤ t} d^{t−i} over the optimiser's steps i.

    The division corrects the bias to the first steps: w̄_1 = w_1, and the average never contains the weights before
    training. With d = 0 it is the weights in training, bit for bit. It costs a copy of the weights and a pass over them
    for each step. Gowal et al. 2020 found it to help adversarial training, with d = 0.995.

    Args:
        decay: d in [0, 1).
    """

    def __init__(self, decay: float = 0.995):
        super().__init__()
        at_least("ema", 0.0, decay=decay)
        if not decay < 1:
            raise UserError(f"ema.decay must be below 1, got {decay}")
        self.decay = decay

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: RobustClassifier, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._step:  # not while gradients accumulate
            self._step = trainer.global_step
            self.add(pl_module.model, (1 - self.decay) / (1 - self.decay ** (self.count + 1)))


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer of its state, by name; shares no memory with the model."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
