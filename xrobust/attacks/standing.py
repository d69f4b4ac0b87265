"""Bookkeeping for attacks that stop working on a sample once it is done."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack
from xrobust.errors import at_least
from xrobust.frame import logits_of, predictions, untouched
from xrobust.threat import per_sample


def require_at_least(attack: Attack, **least: float) -> None:
    """`at_least` for fields of an attack, each with its bound."""
    for field, bound in least.items():
        at_least(type(attack).__name__, bound, **{field: getattr(attack, field)})


def fresh_logits(model: nn.Module, x: Tensor) -> Tensor:
    """What the model says of x when nobody attacks it: evaluation mode, its own precision, (N, K)."""
    with untouched(model, x), torch.no_grad():
        return logits_of(model, x)


def fresh_predictions(model: nn.Module, x: Tensor) -> Tensor:
    """The classes of `fresh_logits`, (N,); −1 where a logit is not a number."""
    return predictions(fresh_logits(model, x))


def choose(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """`yes` for the samples in the mask (N,), `no` for the others; both (N, ...)."""
    return torch.where(per_sample(mask, yes), yes, no)


class PerSample:
    """A bag of tensors that all have one row for each sample still attacked."""

    def keep(self, left: Tensor) -> None:
        """Drop the rows of the samples outside the mask (N,)."""
        rows = left.nonzero().flatten()
        if len(rows) < len(left):
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value[rows])


class Worst:
    """For each sample, the point of largest value offered so far; one that the model gets wrong is final."""

    def __init__(self, x: Tensor):
        self.x_adv = x.clone()
        self.value = torch.full((len(x),), -torch.inf, device=x.device)

    def finish(self, wrong: Tensor) -> None:
        """Take the images themselves for the samples in the mask (N,), which are wrong unperturbed."""
        self.value = self.value.masked_fill(wrong, torch.inf)

    def offer(self, rows: Tensor, points: Tensor, values: Tensor, wrong: Tensor) -> None:
        """Consider a point for each of the samples `rows`, its value and whether it is wrong (n,)."""
        values = values.detach().to(self.value.dtype).masked_fill(wrong, torch.inf)
        best = self.value[rows]
        better = values > best
        self.x_adv[rows] = choose(better, points, self.x_adv[rows])
        self.value[rows] = torch.where(better, values, best)

    @property
    def broken(self) -> Tensor:
        """The samples for which a wrong point has been offered: (N,) bool."""
        return self.value == torch.inf

    @property
    def standing(self) -> Tensor:
        """The positions of the others."""
        return (~self.broken).nonzero().flatten()
