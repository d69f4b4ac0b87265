"""Free adversarial training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.attacks import FGSM
from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.base import Loss, OptimizerFactory, Schedule
from xrobust.errors import UserError, at_least
from xrobust.threat import ThreatModel


class FreeAdversarialTraining(AdversarialTraining):
    """One backward pass for two steps: θ descends CE(f(x + δ), y), δ climbs it; each batch comes m times in a row.

    δ ← Π(δ + ε · ascent(∇ₓ CE(f(x + δ), y))) (Shafahi et al. 2019, Free-m). δ is carried from batch to batch, row by
    row, and starts each epoch at zero, so that a resumed run repeats an uninterrupted one. With m = 1 every batch is
    trained on once, at the δ that the batch before it left behind. An epoch makes m optimiser steps a batch: divide the
    number of epochs by m to spend what standard training spends. Schedules count batches; δ only moves in a `Trainer`.

    Args:
        threat: where x + δ must lie.
        replays: m ≥ 1.
        batch_norm, label_smoothing: as in `AdversarialTraining`; attacking is training, so the model is in training
            mode, and with "adversarial" every replay updates the statistics, as published.

    Raises:
        UserError: at the start of training, if gradients are accumulated: a replay needs the weights that the one
            before it has left.
    """

    attacks_images = False

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        seed: int = 0,
        threat: ThreatModel,
        replays: int = 8,
        batch_norm: str = "adversarial",
        label_smoothing: float = 0.0,
    ):
        super().__init__(
            model=model,
            optimizer=optimizer,
            schedule=schedule,
            seed=seed,
            attack=FGSM(threat=threat),  # the step of δ, and what an ε schedule moves
            batch_norm=batch_norm,
            label_smoothing=label_smoothing,
        )
        at_least("defense", 1, replays=replays)
        self.replays = replays
        self._delta: Tensor | None = None
        self._x_in: Tensor | None = None  # x + δ in the last loss, whose gradient moves δ

    def setup(self, stage: str) -> None:
        batches = self.trainer.accumulate_grad_batches
        if stage == "fit" and batches != 1:
            raise UserError(
                f"trainer.accumulate_grad_batches must be 1 for {type(self).__name__}, which updates the weights in "
                f"each of a batch's {self.replays} replays, got {batches}"
            )

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._delta = None

    def perturb(self, x: Tensor, y: Tensor) -> Tensor:
        if self._delta is None or len(self._delta) < len(x):
            self._delta = torch.zeros_like(x)
        return self.attack.threat.project(x + self._delta[: len(x)], x)

    def loss_on(self, x: Tensor, x_adv: Tensor, y: Tensor) -> Loss:
        self._x_in = x_adv.detach().requires_grad_()
        logits = self.adversarial_logits(x, self._x_in)
        return Loss(self.cross_entropy(logits, y), {"adversarial": logits})

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        for _ in range(self.replays):  # the closure computes the loss and its gradients anew
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    def on_after_backward(self) -> None:
        assert self._x_in is not None and self._x_in.grad is not None and self._delta is not None
        threat, rows = self.attack.threat, slice(len(self._x_in))
        moved = self._delta[rows] + threat.radius * threat.ascent(self._x_in.grad)
        low, high = threat.clip
        # δ will meet other images: it stays in the ball, while the box of x + δ is each image's own affair.
        differences = ThreatModel(threat.norm, threat.eps, (low - high, high - low))
        self._delta[rows] = differences.project(moved, torch.zeros_like(moved))
        self._x_in = None
