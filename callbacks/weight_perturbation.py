"""Training at perturbed weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor

from xrobust.defenses import Loss, RobustClassifier
from xrobust.defenses.adversarial import AdversarialTraining
from xrobust.defenses.rehearsal import rehearsal
from xrobust.errors import at_least


class AdversarialWeightPerturbation(pl.Callback):
    """min_w max_{v: ‖v_l‖ ≤ γ‖w_l‖} L(w + v), for any defense's loss L (AWP, Wu et al. 2020).

    One step of ascent for each batch: v_l = γ ‖w_l‖ g_l / ‖g_l‖ for every weight tensor l of more than one dimension, g
    the gradient of L at w, averaged over all processes. Loss and gradient are then those of w + v. Before the
    optimiser's step, w comes back bit for bit, so that weight decay acts on w.

    L is computed twice with the same adversarial examples, found at w, and the same random numbers; a method that does
    not keep `perturb` and `loss_on` apart computes everything twice. Batch-norm statistics, `.grad` and random states
    know nothing of the first time. It costs a forward and a backward pass, and a copy of the weights.

    Args:
        gamma: γ ≥ 0; at 0 the weights stay.
        warm_up_epochs: epochs before the first perturbation.
    """

    def __init__(self, gamma: float = 0.01, warm_up_epochs: int = 0):
        at_least("awp", 0.0, gamma=gamma)
        at_least("awp", 0, warm_up_epochs=warm_up_epochs)
        self.gamma = gamma
        self.warm_up_epochs = warm_up_epochs
        self._before: list[tuple[Tensor, Tensor]] = []  # the perturbed weights, and what they were

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        if trainer.current_epoch >= self.warm_up_epochs:
            pl_module.loss_around = partial(self._loss_at_perturbed_weights, trainer, pl_module)

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: RobustClassifier) -> None:  # type: ignore[override]
        pl_module.loss_around = None

    def _loss_at_perturbed_weights(
        self, trainer: pl.Trainer, pl_module: RobustClassifier, x: Tensor, y: Tensor
    ) -> Loss:
        if isinstance(pl_module, AdversarialTraining):
            loss = partial(pl_module.loss_at, x, pl_module.perturb(x, y), y)
        else:
            loss = partial(pl_module.training_loss, x, y)
        weights = [w for w in pl_module.model.parameters() if w.requires_grad and w.dim() > 1]
        with rehearsal(pl_module):
            gradients = torch.autograd.grad(loss().value, weights, allow_unused=True, materialize_grads=True)
        self._before = [(w, w.detach().clone()) for w in weights]
        for w, g in zip(weights, _averaged(trainer, gradients), strict=True):
            w.data.add_(perturbation(w.detach(), g, self.gamma))
        return loss()

    def _restore(self) -> None:
        for weight, before in self._before:
            weight.data.copy_(before)
        self._before = []


def perturbation(weight: Tensor, gradient: Tensor, gamma: float) -> Tensor:
    """γ ‖w‖ g / ‖g‖, the steepest ascent of length γ‖w‖; zero where the gradient is zero."""
    length = gradient.norm()
    return gradient * (gamma * weight.norm() / length.where(length > 0, 1))


def _averaged(trainer: pl.Trainer, gradients: Sequence[Tensor]) -> Sequence[Tensor]:
    """The mean over all processes."""
    if trainer.world_size == 1:
        return gradients
    mean = trainer.strategy.reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
    parts = mean.split([g.numel() for g in gradients])
    return [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
