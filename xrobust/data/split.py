"""Stratified choices: splits and small balanced sets."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split positions into (rest, held) with the class shares of the whole in both.

    held has round(fraction · N) positions: ⌊fraction · N_k⌋ of class k, and one more of the classes with the
    largest remainders. Which ones depends on the labels and the seed alone.

    Shapes: (N,) → two sorted int64 tensors.
    """
    sizes = labels.bincount()
    wanted = fraction * sizes.double()
    quota = wanted.floor().long()
    missing = round(fraction * len(labels)) - int(quota.sum())
    quota[(wanted - quota).argsort(descending=True, stable=True)[:missing]] += 1
    held = _rank_in_class(labels, seed) < quota[labels]
    positions = torch.arange(len(labels))
    return positions[~held], positions[held]


def balanced_choice(labels: Tensor, count: int, seed: int) -> Tensor:
    """Positions of `count` samples that take turns over the classes, each class while it lasts.

    The first m of them are the balanced choice of m samples.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turns = _rank_in_class(labels, seed)[order]
    return order[turns.argsort(stable=True)][:count]


def _rank_in_class(labels: Tensor, seed: int) -> Tensor:
    """For each sample its place 0, 1, ... in a seeded shuffle of its class."""
    shuffle = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = shuffle[labels[shuffle].argsort(stable=True)]
    sizes = labels.bincount()
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(labels)
    rank[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    return rank
