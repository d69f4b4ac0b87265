"""What the model says of many changed copies of the images."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor

from xrobust.metrics.probe import Probe


def logits_of_each(probe: Probe, copies: Iterable[Tensor]) -> Tensor:
    """f at n changed copies of the images, each (N, C, H, W): → (n, N, K).

    Copies are taken from the iterable as the internal batch size has room for them.
    """
    copies, room = iter(copies), max(1, probe.batch_size // max(1, len(probe)))
    logits = []
    while part := list(islice(copies, room)):
        logits.append(probe.logits_at(torch.cat(part)).unflatten(0, (len(part), len(probe))))
    return torch.cat(logits)


def of_label(values: Tensor, probe: Probe) -> Tensor:
    """The label's value at each copy: (n, N, K) → (n, N)."""
    return values.gather(2, probe.y.expand(len(values), -1)[:, :, None])[:, :, 0]


def label_drops(probe: Probe, copies: Iterable[Tensor]) -> Tensor:
    """f_y(x) − f_y(x') at n changed copies x' of the images, each (N, C, H, W): → (N, n) float64.

    What a few roundings of the logits explain is exactly 0, so that a model that does not react is seen as such,
    and not as one that reacts at random.
    """
    before, after = probe.logits, logits_of_each(probe, copies)
    rounding = 32 * torch.finfo(before.dtype).eps * torch.maximum(before.abs(), after.abs()).amax(2)
    fall = of_label(before.double() - after.double(), probe)
    return fall.masked_fill(fall.abs() <= rounding, 0).T
