"""Accuracy under an attack on images that are the same in each epoch."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from xrobust.attacks import Attack
from xrobust.defenses import RobustClassifier
from xrobust.frame import untouched
from xrobust.metrics.accuracy import Accuracy
from xrobust.randomness import SampleStreams

BATCH_SIZE = 256


def fixed_accuracy(
    trainer: pl.Trainer, pl_module: RobustClassifier, attack: Attack, images: int, *, split: str, seed: int
) -> Tensor:
    """The share of class-balanced images that are right, and right under attack: a scalar.

    The processes share the images out. Each sample has a random stream of its own, so that the result depends neither
    on the batch size nor on the number of processes.

    Args:
        images: how many, or all of the split if it has fewer.
        split: "train" (without augmentation) or "validation".
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    x, y, index = data.probe_set(min(images, data.summary()[split]), split=split)
    robust = Accuracy().to(pl_module.device)
    with untouched(pl_module.model, x.to(pl_module.device)):
        for rows in torch.arange(len(x))[trainer.global_rank :: trainer.world_size].split(BATCH_SIZE):
            xs, ys = x[rows].to(pl_module.device), y[rows].to(pl_module.device)
            x_adv = attack(pl_module.model, xs, ys, generator=SampleStreams(seed, index[rows].tolist()))
            with torch.no_grad():
                robust.update((pl_module.predict(xs) == ys) & (pl_module.predict(x_adv) == ys))
    return robust.compute()
