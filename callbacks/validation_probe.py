"""The images on which callbacks measure explanations, and whether there is anything to measure."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl

from xrobust.attacks import Attack
from xrobust.attributions import Attribution, Gradient
from xrobust.explanation import check_attributions
from xrobust.metrics import Probe


def validation_probe(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    images: int,
    attack: Attack,
    *,
    map_attack: Attack | None = None,
    seed: int,
    batch_size: int = 256,
    share: bool = False,
) -> Probe:
    """A probe of the model in training on fixed, class-balanced validation images.

    Args:
        images: how many, or all of the set if it has fewer.
        attack: makes the adversarial examples.
        map_attack: an attack on the map.
        seed: of everything random.
        batch_size: how many images go through the model at once.
        share: whether this process takes only its share of the images.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    rows = slice(trainer.global_rank, None, trainer.world_size) if share else slice(None)
    images = min(images, data.summary()["validation"])
    x, y, index = (part.to(pl_module.device) for part in data.probe_set(images))
    mask = data.probe_masks(images)
    return Probe(
        model=pl_module.model,  # type: ignore[arg-type]
        x=x[rows],
        y=y[rows],
        index=index[rows],
        method=Gradient(batch_size=batch_size),
        threat=attack.threat,
        attack=attack,
        map_attack=map_attack,
        mask=None if mask is None else mask[rows].to(pl_module.device),
        pool=(x, y),
        seed=seed,
        batch_size=batch_size,
    )


def check_explainable(
    trainer: pl.Trainer, pl_module: pl.LightningModule, attributions: Mapping[str, Attribution]
) -> None:
    """Refuse attributions that the network does not allow, before the first epoch.

    Raises:
        UserError: naming the attribution, and why.
    """
    x, y, _ = trainer.datamodule.probe_set(1)  # type: ignore[attr-defined]
    model, device = pl_module.model, pl_module.device
    check_attributions(attributions, model, x.to(device), y.to(device))  # type: ignore[arg-type]
