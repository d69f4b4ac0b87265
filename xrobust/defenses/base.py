"""What every training method shares. It knows no method by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from xrobust.attacks import Attack
from xrobust.defenses.soft_labels import check_soft_labels
from xrobust.export.result import AccuracyResult
from xrobust.frame import hard_labels, predictions
from xrobust.metrics.accuracy import Accuracy
from xrobust.randomness import mix

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Loss:
    """What a training method computes for a batch.

    Args:
        value: the scalar to minimise.
        logits: by name ("clean", "adversarial"), the logits (N, K) that were computed on the way; the accuracy of
            each is logged as `train/<name>_accuracy`.
        terms: further scalars to log as `train/<name>`.
        x_adv: the images that the attack made, where there is one.
    """

    value: Tensor
    logits: Mapping[str, Tensor]
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    x_adv: Tensor | None = None


class RobustClassifier(pl.LightningModule, ABC):
    """A classifier in training. A method is a subclass that writes `training_loss`.

    Args:
        model: images in [0, 1] → logits.
        optimizer: parameters → optimiser.
        schedule: share of the run that is done → factor on the learning rate, applied at every step.
        seed: with the process rank and the epoch, the seed of `generator` and of the global one, from which dropout
            draws; an interrupted run that is resumed at an epoch sees the same random numbers as one that was not.
    """

    attack: Attack | None = None  # the training attack, for methods that have one
    attacks_images = True  # whether it makes their training images, or only carries the radius that a schedule moves
    selection = "val/robust_accuracy"  # by which the best epoch is chosen

    def __init__(self, *, model: nn.Module, optimizer: OptimizerFactory, schedule: Schedule, seed: int = 0):
        super().__init__()
        self.model = model
        self._make_optimizer = optimizer
        self.schedule = schedule
        self._seed = seed
        self.generator = torch.Generator().manual_seed(seed)
        self.results: list[AccuracyResult] = []  # what the test measured, for the bundle
        self.explanation_card: dict[str, Any] | None = None  # how good its explanations are, for the bundle
        self.config: dict[str, Any] = {}  # the run's plain configuration, which travels in every checkpoint
        self._takes_soft_labels = False  # not known before the first batch that has them
        self.loss_around: Callable[[Tensor, Tensor], Loss] | None = None  # a piece's way to compute it
        self.regularization: Callable[[Tensor, Tensor, Loss], Loss] | None = None  # what is added to it
        self.train_metrics = nn.ModuleDict({"loss": MeanMetric()})
        self.val_accuracy, self.test_accuracy = Accuracy(), Accuracy()

    @abstractmethod
    def training_loss(self, x: Tensor, y: Tensor) -> Loss:
        """The loss of the method on a batch of images (N, C, H, W) in [0, 1] and labels (N,).

        Where a batch is mixed, the labels are class probabilities (N, K); a method that cannot take them is refused.
        """

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def on_train_epoch_start(self) -> None:
        seed = mix(self._seed, self.global_rank, self.current_epoch)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        torch.manual_seed(mix(seed))  # what dropout draws from

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        if y.is_floating_point() and not self._takes_soft_labels:
            check_soft_labels(self, x, y.shape[1])
            self._takes_soft_labels = True
        loss = (self.loss_around or self.training_loss)(x, y)
        if self.regularization is not None:
            loss = self.regularization(x, y, loss)
        self._metric("loss", MeanMetric).update(loss.value.detach(), weight=len(y))
        for name, value in loss.terms.items():
            self._metric(name, MeanMetric).update(value.detach(), weight=len(y))
        for name, logits in loss.logits.items():
            self._metric(f"{name}_accuracy", Accuracy).update(predictions(logits.detach()) == hard_labels(y))
        return loss.value

    def on_train_epoch_end(self) -> None:
        for name in self.train_metrics:
            metric: Any = self.train_metrics[name]
            self.log(f"train/{name}", metric, prog_bar=name == "loss", metric_attribute=f"train_metrics.{name}")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.val_accuracy.update(self.predict(x) == y)
        self.log("val/clean_accuracy", self.val_accuracy, prog_bar=True)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.test_accuracy.update(self.predict(x) == y)
        self.log("test/clean_accuracy", self.test_accuracy)

    def predict(self, x: Tensor) -> Tensor:
        """The predicted classes in the model's own precision, whatever the trainer's: (N, C, H, W) → (N,)."""
        with torch.autocast(x.device.type, enabled=False):
            return predictions(self.model(x))

    @property
    def progress(self) -> float:
        """The share of the run that is done; 1 without a trainer."""
        return 1.0 if self._trainer is None else share_done(self._trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["config"] = self.config

    def configure_optimizers(self) -> Any:
        optimizer = self._make_optimizer(self.model.parameters())
        total = self.trainer.estimated_stepping_batches
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(min(step / total, 1.0)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _metric(self, name: str, kind: type) -> Any:
        """The metric of that name, made when a method first reports it."""
        if name not in self.train_metrics:
            self.train_metrics[name] = kind().to(self.device)
        return self.train_metrics[name]


def share_done(trainer: pl.Trainer) -> float:
    """The share of the run's optimiser steps that are done, in [0, 1]."""
    return min(trainer.global_step / trainer.estimated_stepping_batches, 1.0)


def mean_cross_entropy(logits: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """CE averaged over the batch, against (1 − s) · one-hot + s/K; in float32 at least, whatever the autocast."""
    return F.cross_entropy(at_least_float32(logits), y, label_smoothing=label_smoothing)


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits of half precision in float32, others as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
