"""The evaluation of a model on a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xrobust.attacks.standing import fresh_logits
from xrobust.errors import UserError, at_least
from xrobust.evaluation.batch import Turn, Watch, attack_batch, turns
from xrobust.evaluation.fingerprint import fingerprint
from xrobust.evaluation.images import device_of, unit
from xrobust.evaluation.ladder import Ladder
from xrobust.evaluation.outcome import Evaluation, Outcomes
from xrobust.evaluation.reason import reason
from xrobust.evaluation.store import BatchStore


def _unwatched(turn: Turn) -> None:
    """Nobody wants to know."""


def evaluate(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ladders: Sequence[Ladder],
    *,
    index: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 500,
    folder: str | Path | None = None,
    watch: Watch = _unwatched,
) -> Evaluation:
    """Attack every sample that the model gets right, and keep for each the worst that any attack found.

    Random numbers are keyed by the seed and the sample, so outcomes depend neither on the batch size nor on the order
    (up to the rounding of a forward pass; models that draw random numbers themselves, and attacks on their mean, see
    the batch). Passes run in the model's own precision, in evaluation mode, without TF32.

    Args:
        model: images in [0, 1] → logits (N, K), on the device that is to compute.
        x: (N, C, H, W) in [0, 1], or uint8, which is divided by 255.
        y: labels (N,).
        ladders: one for each threat model.
        index: increasing positions of the samples in the data set they come from, (N,); by default 0 … N − 1.
        seed: of the random streams.
        batch_size: samples attacked at once; it may change when an evaluation is resumed.
        folder: finished batches are kept here, and a later call of equal protocol, model and data goes on after them.
        watch: is told after each turn of an attack on a batch.

    Raises:
        UserError: if model and data do not fit, the folder holds another evaluation, or an attack cannot run.
        RuntimeError: if an attack leaves its threat model.
    """
    at_least("evaluate", 1, batch_size=batch_size, samples=len(x), ladders=len(ladders))
    index = torch.arange(len(x)) if index is None else index
    if (index.diff() <= 0).any():
        raise UserError("evaluate.index must increase from sample to sample")
    device = device_of(model, x)
    _require_fit(model, unit(x[:1]).to(device), y)
    protocol = {"attacks": [rung.describe() for ladder in ladders for rung in ladder.rungs], "seed": seed}
    written = None if folder is None else fingerprint(model, x, y, index, protocol)
    store = None if folder is None or written is None else BatchStore(Path(folder), written, Outcomes)
    parts: list[Outcomes] = [] if store is None else store.finished()
    for part in parts:
        for turn in turns(part, ladders):
            watch(turn)
    finished = np.concatenate([part.index for part in parts]) if parts else np.empty(0, dtype=np.int64)
    for rows in torch.from_numpy(~np.isin(index.numpy(), finished)).nonzero().flatten().split(batch_size):
        if len(rows):
            batch = unit(x[rows]).to(device), y[rows].to(device)
            parts.append(attack_batch(model, *batch, index[rows], ladders, seed, watch))
            if store is not None:
                store.add(parts[-1])
    return Evaluation(tuple(ladders), seed, Outcomes.joined(parts))


def _require_fit(model: nn.Module, image: Tensor, y: Tensor) -> None:
    """Finite logits for the first image, and as many as the labels need."""
    try:
        logits = fresh_logits(model, image)
    except (RuntimeError, ValueError) as error:
        shape = tuple(image.shape[1:])
        raise UserError(f"the model does not accept images of shape {shape}: {reason(error)}") from error
    if logits.dim() != 2 or logits.shape[1] <= int(y.max()):
        shape = tuple(logits.shape[1:])
        raise UserError(f"the model returns outputs of shape {shape} for an image, but labels go up to {int(y.max())}")
    if not logits.isfinite().all():
        raise UserError("the model's logits are not finite for the first image")
