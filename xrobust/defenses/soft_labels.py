"""Labels as class probabilities, as mixed images have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from xrobust.defenses.rehearsal import rehearsal
from xrobust.errors import UserError

if TYPE_CHECKING:
    from xrobust.defenses.base import RobustClassifier

TOLERANCE = 1e-3  # float32 rounds the two kinds of cross-entropy differently


def check_soft_labels(defense: RobustClassifier, x: Tensor, classes: int) -> None:
    """Refuse class probabilities as labels unless the method and its attack take them.

    They do if one-hot rows give the loss that the integers give, on a few images of a batch.

    Raises:
        UserError: naming the method and its attack.
    """
    few = x[: 3 if classes == 2 else 2]  # as many images as classes could hide a label that is read along the batch
    y = torch.arange(len(few), device=x.device) % classes
    try:
        with torch.autocast(x.device.type, enabled=False):
            hard, soft = (_loss(defense, few, labels) for labels in (y, F.one_hot(y, classes).float()))
        fits = torch.isclose(hard, soft, rtol=TOLERANCE)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise _refusal(defense) from error
    if not fits:
        raise _refusal(defense)


def _loss(defense: RobustClassifier, x: Tensor, y: Tensor) -> Tensor:
    with rehearsal(defense):
        return defense.training_loss(x, y).value.detach()


def _refusal(defense: RobustClassifier) -> UserError:
    attack = "" if defense.attack is None else f" with the attack {defense.attack}"
    return UserError(f"data.mix makes soft labels, which {type(defense).__name__}{attack} cannot be trained on")
