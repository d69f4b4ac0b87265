"""What would stop a training run in its first steps, found before the data is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from xrobust.errors import UserError, at_least, at_place
from xrobust.frame import untouched

if TYPE_CHECKING:
    from xrobust.defenses.base import OptimizerFactory


@contextmanager
def one_sentence(place: str) -> Iterator[None]:
    """What Lightning refuses becomes a user's mistake, with its place."""
    try:
        yield
    except MisconfigurationException as error:
        raise at_place(place, " ".join(str(error).split())) from error


def require_steps(trainer: Mapping[str, Any]) -> None:
    """Refuse a number of epochs or of accumulated batches below 1, and a run without end.

    Raises:
        UserError: naming the value and what is allowed.
    """
    at_least("trainer", 1, accumulate_grad_batches=trainer.get("accumulate_grad_batches", 1))
    steps = trainer.get("max_steps", -1)
    if trainer.get("max_epochs") is not None:
        at_least("trainer", 1, max_epochs=trainer["max_epochs"])
    elif steps == -1:
        raise UserError("trainer.max_epochs=null goes with trainer.max_steps=<a number of steps>: a run has an end")
    if steps != -1:
        at_least("trainer", 1, max_steps=steps)


def require_optimizer(make: OptimizerFactory) -> None:
    """Refuse values that the optimiser refuses.

    Raises:
        UserError: with its reason.
    """
    try:
        make([nn.Parameter(torch.zeros(1, 1)), nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError) as error:
        raise at_place("optim.optimizer", error) from error


def require_fit(model: nn.Module, data: Any) -> None:
    """Refuse a model that does not give a logit for each class to an image of the data's shape.

    Args:
        model: images in [0, 1] → logits; it leaves as it came.
        data: with `num_classes`, `channels`, `image_size`.

    Raises:
        UserError: naming both shapes.
    """
    image = torch.zeros(1, data.channels, data.image_size, data.image_size)
    shape = tuple(image.shape[1:])
    try:
        with untouched(model, image), torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(image)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"model does not accept the images of data, which have shape {shape}: {reason}") from error
    if tuple(logits.shape) != (1, data.num_classes):
        raise UserError(
            f"model makes an output of shape {tuple(logits.shape[1:])} of an image, but data.num_classes="
            f"{data.num_classes} asks for ({data.num_classes},): see model.num_classes"
        )
