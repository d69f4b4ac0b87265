"""Ready-made targets: what an attribution can explain instead of one logit.

Each takes the labels, (N,) int64 or one class for all, and returns a score, logits (N, K) → (N,). To explain the
prediction, give it as the label: `margin(model(x).argmax(1))`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.attributions.base import Score
from xrobust.errors import UserError


def margin(labels: Tensor | int) -> Score:
    """z_y − max_{k≠y} z_k: the evidence for y against its strongest rival; its zeros are the decision boundary."""

    def score(logits: Tensor) -> Tensor:
        column = _column(labels, logits)
        rival = logits.scatter(1, column, -torch.inf).amax(1)
        return logits.gather(1, column)[:, 0] - rival

    return score


def probability(labels: Tensor | int) -> Score:
    """softmax(z)_y; its gradient vanishes where the model is certain."""
    return lambda logits: logits.softmax(1).gather(1, _column(labels, logits))[:, 0]


def log_probability(labels: Tensor | int) -> Score:
    """log softmax(z)_y."""
    return lambda logits: logits.log_softmax(1).gather(1, _column(labels, logits))[:, 0]


def cross_entropy(labels: Tensor | int) -> Score:
    """−log softmax(z)_y: evidence for the label has a negative sign."""
    of_label = log_probability(labels)
    return lambda logits: -of_label(logits)


def _column(labels: Tensor | int, logits: Tensor) -> Tensor:
    """The labels as (N, 1) indices, in a copy that autograd can record whatever mode they were made in."""
    column = torch.as_tensor(labels).to(logits.device, copy=True)
    if column.dtype != torch.int64 or column.shape not in ((), (len(logits),)):
        raise UserError(
            f"a score's labels must be int64 of shape ({len(logits)},), or one class, "
            f"got {column.dtype} of shape {tuple(column.shape)}"
        )
    return column.expand(len(logits))[:, None]
