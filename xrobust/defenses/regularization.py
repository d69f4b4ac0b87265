"""Penalties on gradients, added to the loss of any training method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from xrobust.defenses.base import Loss, RobustClassifier, share_done
from xrobust.defenses.second_order import refuse_compiled
from xrobust.errors import UserError
from xrobust.regularizers import Regularizer
from xrobust.regularizers.base import trained_weights


class Regularization:
    """L ↦ L + Σ_i λ_i(t) · mean R_i, where L is the loss of a step of a training method.

    `defense.regularization = Regularization(defense, {"grad_align": GradAlign(...)})` is all that a run needs. Each
    penalty is logged as `train/penalty/<name>`. In the first step of an epoch the norms of the gradients of all terms
    are compared: `train/gradient_share/<name>` is ‖λ_i ∇R_i‖ / (‖∇L‖ + Σ_j ‖λ_j ∇R_j‖), in [0, 1].

    If the radius of the training attack is scheduled, the balls of the regularisers keep its proportion. Weights that
    are perturbed for the loss (AWP) are perturbed for the penalties, too; the perturbation looks at the loss alone.

    Args:
        defense: the training method, at the full radius of its attack.
        regularizers: by the name under which they are logged.

    Raises:
        UserError: for a compiled model, here and in training.
    """

    def __init__(self, defense: RobustClassifier, regularizers: Mapping[str, Regularizer]):
        self.regularizers = dict(regularizers)
        self.defense = defense
        self._full = None if defense.attack is None else defense.attack.threat.fraction
        self._compared: int | None = None  # the epoch whose gradients were compared last
        self._refuse_compiled()

    def __call__(self, x: Tensor, y: Tensor, loss: Loss) -> Loss:
        if not self.regularizers:
            return loss
        defense = self.defense
        weights = trained_weights(defense.model)
        compare = self._begins_an_epoch()
        if compare:
            self._refuse_compiled()
            of_loss = _norm(torch.autograd.grad(loss.value, weights, allow_unused=True, retain_graph=True))
        total, gradients = torch.zeros((), device=x.device), [torch.zeros_like(weight) for weight in weights]
        terms, norms = dict(loss.terms), dict[str, Tensor]()
        for name, regularizer in self.regularizers.items():
            weight = regularizer.weight_at(self._progress())
            images, labels, logits = _batch(regularizer.images, x, y, loss)
            scaled = regularizer.at_share_of_eps(self._share_of_eps())
            mean = scaled.mean(defense.model, images, labels, logits, defense.generator)
            terms[f"penalty/{name}"] = mean.value
            if compare:
                norms[name] = weight * _norm(mean.gradients)
            total = total + weight * mean.value
            gradients = [old + weight * new for old, new in zip(gradients, mean.gradients, strict=True)]
        if compare:
            whole = of_loss + torch.stack(list(norms.values())).sum()
            terms |= {f"gradient_share/{name}": norm / whole.where(whole > 0, 1) for name, norm in norms.items()}
        return replace(loss, value=loss.value + _KnownGradients.apply(total, gradients, *weights), terms=terms)

    def _begins_an_epoch(self) -> bool:
        """Whether this is the first step of an epoch."""
        epoch, before = self.defense.current_epoch, self._compared
        self._compared = epoch
        return epoch != before

    def _progress(self) -> float:
        """The share of the run that is done; 0 without a trainer."""
        trainer = self.defense._trainer
        return 0.0 if trainer is None else share_done(trainer)

    def _share_of_eps(self) -> Fraction:
        attack = self.defense.attack
        return attack.threat.fraction / self._full if attack is not None and self._full else Fraction(1)

    def _refuse_compiled(self) -> None:
        if self.regularizers:
            refuse_compiled(self.defense, f"regularizers=[{','.join(self.regularizers)}]")


class _KnownGradients(torch.autograd.Function):
    """A scalar whose gradients with respect to some tensors are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return None, None, *(upstream[0] * gradient for gradient in ctx.saved_tensors)


def _batch(images: str, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, Tensor | None]:
    """The images that a regulariser is for, their labels, and their logits where the loss has computed them.

    A loss on the examples of several attacks repeats the labels.
    """
    if images == "clean":
        return x, y, loss.logits.get("clean")
    if loss.x_adv is None or loss.x_adv is x:
        raise UserError("a regulariser with images=adversarial needs a training method that attacks its images")
    labels = y.repeat(len(loss.x_adv) // len(y), *[1] * (y.dim() - 1))
    return loss.x_adv, labels, loss.logits.get("adversarial")


def _norm(gradients: Sequence[Tensor | None]) -> Tensor:
    """‖·‖₂ of all of them together."""
    return torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm()
