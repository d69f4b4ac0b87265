"""What an attack maximises: (logits, y, reference) → (N,), larger is more adversarial.

`reference` holds the logits of the unperturbed images, for the losses in `WITH_REFERENCE`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.errors import UserError, one_of

AttackLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cross_entropy(logits: Tensor, y: Tensor, reference: Tensor | None = None) -> Tensor:
    """−log softmax(z)_y (Goodfellow et al. 2015, Madry et al. 2018)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor, reference: Tensor | None = None) -> Tensor:
    """max_{k≠y} z_k − z_y (Carlini & Wagner 2017), positive where y is not the prediction."""
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


def kl(logits: Tensor, y: Tensor, reference: Tensor | None = None) -> Tensor:
    """KL(p(x) ‖ p(x_adv)), summed over classes; the clean side is a constant (Zhang et al. 2019, TRADES)."""
    if reference is None:
        raise ValueError("the KL loss needs the logits of the unperturbed images as its reference")
    clean = reference.detach().log_softmax(1)
    return F.kl_div(logits.log_softmax(1), clean, reduction="none", log_target=True).sum(1)


def squared_error(logits: Tensor, y: Tensor, reference: Tensor | None = None) -> Tensor:
    """‖p(x_adv) − p(x)‖², summed over classes; the clean side is a constant (Pang et al. 2022, SCORE)."""
    if reference is None:
        raise ValueError("the squared error needs the logits of the unperturbed images as its reference")
    return (logits.softmax(1) - reference.detach().softmax(1)).square().sum(1)


def dlr(logits: Tensor, y: Tensor, reference: Tensor | None = None) -> Tensor:
    """(max_{k≠y} z_k − z_y) / (z_π1 − z_π3), π sorting the logits downwards (Croce & Hein 2020).

    Neither a shift nor a rescaling of the logits changes it, so that large logits cannot hide the gradient.

    Raises:
        UserError: for fewer than three classes.
    """
    return margin(logits, y) / _spread(logits)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
    """(z_t − z_y) / (z_π1 − (z_π3 + z_π4) / 2) for a class t (Croce & Hein 2020); z_π3 alone if K = 3.

    Raises:
        UserError: for fewer than three classes.
    """
    if target is None:
        raise ValueError("the targeted DLR loss needs target classes")
    towards = logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])
    return towards[:, 0] / _spread(logits, lowest=4)


def _spread(logits: Tensor, lowest: int = 3) -> Tensor:
    """What DLR divides by: the largest logit minus the mean of the third to the `lowest`-th largest."""
    classes = logits.shape[1]
    if classes < 3:
        raise UserError(f"the DLR loss needs at least 3 classes, got {classes}")
    top = logits.topk(min(lowest, classes), dim=1).values
    return top[:, 0] - top[:, 2:].mean(1) + 1e-12


LOSSES: dict[str, AttackLoss] = {loss.__name__: loss for loss in (cross_entropy, margin, dlr, kl, squared_error)}
WITH_REFERENCE = frozenset({kl, squared_error})


def loss_named(name: str, place: str) -> AttackLoss:
    """The loss of that name; an error that lists the names otherwise."""
    if name not in LOSSES:
        raise one_of(place, name, list(LOSSES))
    return LOSSES[name]


def loss_of_logits(name: str, place: str) -> AttackLoss:
    """The loss of that name among those that need no reference; an error that lists the names otherwise."""
    allowed = [known for known, loss in LOSSES.items() if loss not in WITH_REFERENCE]
    if name not in allowed:
        raise one_of(place, name, allowed)
    return LOSSES[name]
