"""Certificates of the smoothed classifier for a set of images, batch by batch, and the numbers that they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from xrobust.attacks.standing import fresh_predictions
from xrobust.errors import at_least
from xrobust.evaluation.fingerprint import fingerprint
from xrobust.evaluation.fixed import fixed_conditions
from xrobust.evaluation.images import device_of, unit
from xrobust.evaluation.sample_arrays import SampleArrays
from xrobust.evaluation.store import Tally, in_batches, positions
from xrobust.export.result import AccuracyResult, images_protocol
from xrobust.files import csv_text
from xrobust.randomness import mix
from xrobust.smoothing import ABSTAIN, Procedure

COLUMNS = ("index", "label", "clean_prediction", "prediction", "radius", "probability", "votes", "samples", "seconds")
COHEN_COLUMNS = ("idx", "label", "predict", "radius", "correct", "time")


@dataclass(frozen=True, eq=False)
class Smoothed(SampleArrays):
    """What is known of N images.

    Attributes:
        label: (N,).
        clean_prediction: of the base classifier without noise, (N,).
        prediction, radius, probability, votes, samples, seconds: as in `xrobust.smoothing.SmoothedCertificate`, (N,).
    """

    label: NDArray
    clean_prediction: NDArray
    prediction: NDArray
    radius: NDArray
    probability: NDArray
    votes: NDArray
    samples: NDArray
    seconds: NDArray

    @property
    def abstains(self) -> NDArray:
        """(N,) bool."""
        return self.prediction == ABSTAIN

    @property
    def correct(self) -> NDArray:
        """(N,) bool; an abstention is not."""
        return self.prediction == self.label


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    procedure: Procedure,
    *,
    index: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 10,
    folder: str | Path | None = None,
    watch: Callable[[Tally], None] = lambda batch: None,
) -> Smoothed:
    """Certificates for every image.

    Args:
        model: the base classifier, images → logits (N, K), on the device that is to compute.
        x: (N, C, H, W) in [0, 1], or uint8, which is divided by 255.
        y: labels (N,).
        procedure: how they are certified.
        index: increasing positions of the images in the data set they come from; by default 0 … N − 1.
        seed: of the noise, together with the position of the image.
        batch_size: images in a batch; it may change when a run is resumed.
        folder: finished batches are kept here, and a later call of equal protocol, model and data goes on after them.
        watch: is told after each batch.

    Raises:
        UserError: if the folder holds another run.
        RuntimeError: if a logit is not finite.
    """
    at_least("smooth", 1, batch_size=batch_size, samples=len(x))
    at = positions("smooth", len(x), index)
    device = device_of(model, x)
    protocol = {"procedure": procedure.describe(), "seed": seed}

    def compute(rows: Tensor) -> Smoothed:
        part = _batch(model, unit(x[rows]).to(device), y[rows], at[rows], procedure, seed)
        watch(_told(part))
        return part

    written = partial(fingerprint, model, x, y, at, protocol)
    parts = in_batches(compute, Smoothed, at, batch_size, folder, written, replay=lambda part: watch(_told(part)))
    return Smoothed.joined(parts)


def _batch(model: nn.Module, x: Tensor, y: Tensor, index: Tensor, procedure: Procedure, seed: int) -> Smoothed:
    with fixed_conditions(x.device, mix(seed, int(index[0]))):
        clean = fresh_predictions(model, x)
        certificate = procedure(model, x, seed=seed, index=index.tolist())
    columns = {"clean_prediction": clean, **vars(certificate)}
    known = {name: value.cpu().numpy() for name, value in columns.items()}
    return Smoothed(index=index.numpy(), label=y.cpu().numpy(), **known)


def _told(part: Smoothed) -> Tally:
    right, abstained = int(part.correct.sum()), int(part.abstains.sum())
    wrong = len(part.index) - right - abstained
    return Tally(len(part.index), {"right": right, "wrong": wrong, "abstained": abstained})


def certified_accuracy(
    smoothed: Smoothed, procedure: Procedure, radius: float, stage: str, seed: int, data: str | None = None
) -> AccuracyResult:
    """The share of images that are right and certified at a radius, with its protocol."""
    described = procedure.describe()
    summary = f"smoothing, radius {radius:g}: {described['summary']}"
    certifier = {**described, "radius": radius, "summary": summary}
    protocol = {**images_protocol(stage, data), "certifier": certifier, "seed": seed}
    right = smoothed.correct & (smoothed.radius >= radius)
    return AccuracyResult(f"{stage}/certified_accuracy", int(right.sum()), len(right), protocol)


def average_certified_radius(smoothed: Smoothed) -> float:
    """ACR = (1/N) Σ radius · [right] (Zhai et al. 2020): wrong predictions and abstentions count as 0."""
    return float((smoothed.radius * smoothed.correct).mean())


def smoothing_summary(smoothed: Smoothed, procedure: Procedure) -> dict[str, Any]:
    """Counts, and what it took; `saved` is the share of the samples that stopping early has spared."""
    used, full = int(smoothed.samples.sum()), len(smoothed.index) * (procedure.n0 + procedure.n)
    return {
        **_told(smoothed).statuses,
        "failure_probability": procedure.alpha,
        "protocol": procedure.describe(),
        "samples": used,
        "samples_per_image": used / len(smoothed.index),
        "saved": 1 - used / full,
        "seconds": float(smoothed.seconds.sum()),
    }


def samples_csv(smoothed: Smoothed) -> str:
    """One line for each image; an abstention has prediction −1."""
    columns = (smoothed.arrays()[name].tolist() for name in COLUMNS)
    return csv_text(COLUMNS, zip(*columns, strict=True))


def cohen_tsv(smoothed: Smoothed) -> str:
    """The same in the format of Cohen et al. 2019: idx, label, predict, radius, correct, time, with tabs between."""
    times = [timedelta(seconds=seconds) for seconds in smoothed.seconds.tolist()]
    whole = (smoothed.index, smoothed.label, smoothed.prediction)
    correct = smoothed.correct.astype(int)
    columns = (*(column.tolist() for column in (*whole, smoothed.radius, correct)), times)
    return csv_text(COHEN_COLUMNS, zip(*columns, strict=True), delimiter="\t")
