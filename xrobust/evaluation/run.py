"""The evaluation of a model on a set of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from xrobust.attacks.standing import fresh_logits
from xrobust.errors import UserError, at_least
from xrobust.evaluation.batch import Turn, Watch, attack_batch, turns
from xrobust.evaluation.fingerprint import fingerprint
from xrobust.evaluation.images import device_of, unit
from xrobust.evaluation.ladder import Ladder
from xrobust.evaluation.outcome import Evaluation, Outcomes
from xrobust.evaluation.reason import reason
from xrobust.evaluation.store import in_batches, positions


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
    at = positions("evaluate", len(x), index)
    device = device_of(model, x)
    require_fit(model, x, y)
    protocol = {"attacks": [rung.describe() for ladder in ladders for rung in ladder.rungs], "seed": seed}

    def compute(rows: Tensor) -> Outcomes:
        return attack_batch(model, unit(x[rows]).to(device), y[rows].to(device), at[rows], ladders, seed, watch)

    def replay(part: Outcomes) -> None:
        for turn in turns(part, ladders):
            watch(turn)

    written = partial(fingerprint, model, x, y, at, protocol)
    parts = in_batches(compute, Outcomes, at, batch_size, folder, written, replay)
    return Evaluation(tuple(ladders), seed, Outcomes.joined(parts))


def require_fit(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Finite logits for the first image, and as many as the labels need.

    Raises:
        UserError: naming the shapes.
    """
    image = unit(x[:1]).to(device_of(model, x))
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
