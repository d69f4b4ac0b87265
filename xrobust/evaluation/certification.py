"""Certificates for a set of images, batch by batch, and their agreement with an attack."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xrobust.attacks.standing import fresh_predictions
from xrobust.certification import STATUSES, Certificate, Certifier
from xrobust.errors import at_least
from xrobust.evaluation.fingerprint import fingerprint
from xrobust.evaluation.fixed import fixed_conditions
from xrobust.evaluation.images import device_of, unit
from xrobust.evaluation.outcome import Evaluation
from xrobust.evaluation.sample_arrays import SampleArrays
from xrobust.evaluation.store import Tally, in_batches, positions
from xrobust.export.result import AccuracyResult, images_protocol
from xrobust.files import csv_text
from xrobust.randomness import SampleStreams, mix

CERTIFIED, FALSIFIED = STATUSES.index("certified"), STATUSES.index("falsified")
COLUMNS = (
    "index",
    "label",
    "clean_prediction",
    "threat",
    "eps",
    "status",
    "certifier",
    "margin",
    "radius",
    "counter_example_prediction",
    "distance",
    "domains",
    "stands_attack",
)


@dataclass(frozen=True, eq=False)
class Verdicts(SampleArrays):
    """What is known of N samples.

    Attributes:
        label, clean_prediction: (N,).
        status, margin, radius, member, work, seconds: as in `xrobust.certification.Certificate`, (N,).
        counter_example: images, NaN where none is known, (N, C, H, W).
        counter_prediction: the class of the counter-example; the clean one where none is known, (N,).
        distance: of the counter-example; NaN where none is known, (N,).
    """

    label: NDArray
    clean_prediction: NDArray
    status: NDArray
    margin: NDArray
    radius: NDArray
    member: NDArray
    work: NDArray
    seconds: NDArray
    counter_example: NDArray
    counter_prediction: NDArray
    distance: NDArray

    @property
    def certified(self) -> NDArray:
        """(N,) bool."""
        return self.status == CERTIFIED

    @property
    def correct(self) -> NDArray:
        """Whether the model is right without an adversary, (N,) bool."""
        return self.clean_prediction == self.label


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    certifier: Certifier,
    *,
    index: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 50,
    folder: str | Path | None = None,
    watch: Callable[[Tally], None] = lambda batch: None,
) -> Verdicts:
    """Certificates for every sample.

    Args:
        model: images in [0, 1] → logits (N, K), on the device that is to compute.
        x: (N, C, H, W) in [0, 1], or uint8, which is divided by 255.
        y: labels (N,).
        certifier: which bounds, against which threat model.
        index: increasing positions of the samples in the data set they come from; by default 0 … N − 1.
        seed: of the attacks among the certifiers, together with the position of the sample.
        batch_size: samples in a batch; it may change when a run is resumed.
        folder: finished batches are kept here, and a later call of equal protocol, model and data goes on after them.
        watch: is told after each batch.

    Raises:
        UserError: if the model has an operation that no bound is known for, or the folder holds another run.
    """
    at_least("certify", 1, batch_size=batch_size, samples=len(x))
    at = positions("certify", len(x), index)
    device = device_of(model, x)
    protocol = {"certifier": certifier.describe(), "seed": seed}

    def compute(rows: Tensor) -> Verdicts:
        part = _batch(model, unit(x[rows]).to(device), y[rows].to(device), at[rows], certifier, seed)
        watch(_told(part))
        return part

    written = partial(fingerprint, model, x, y, at, protocol)
    parts = in_batches(compute, Verdicts, at, batch_size, folder, written, replay=lambda part: watch(_told(part)))
    return Verdicts.joined(parts)


def require_support(model: nn.Module, x: Tensor, certifier: Certifier) -> None:
    """Certify one image, with the class that the model gives it, before time is spent on all.

    Raises:
        UserError: if the certifier does not support the network.
    """
    with fixed_conditions(device_of(model, x), 0):
        image = unit(x[:1]).to(device_of(model, x))
        certifier.certify(model, image, fresh_predictions(model, image))


def _told(part: Verdicts) -> Tally:
    return Tally(len(part.index), {name: int((part.status == i).sum()) for i, name in enumerate(STATUSES)})


def _batch(model: nn.Module, x: Tensor, y: Tensor, index: Tensor, certifier: Certifier, seed: int) -> Verdicts:
    with fixed_conditions(x.device, mix(seed, int(index[0]))):
        clean = fresh_predictions(model, x)
        streams = SampleStreams(seed, index.tolist())
        certificate: Certificate = certifier.certify(model, x, y, generator=streams)
        falsified = certificate.status == FALSIFIED
        known = torch.where(falsified.view(-1, *[1] * (x.dim() - 1)), certificate.counter_example, x)
        prediction = fresh_predictions(model, known)
        distance = certifier.threat.distance(known, x).masked_fill(~falsified, torch.nan)
    columns = {
        "label": y,
        "clean_prediction": clean,
        "status": certificate.status,
        "margin": certificate.margin,
        "radius": certificate.radius,
        "member": certificate.member,
        "work": certificate.work,
        "seconds": certificate.seconds,
        "counter_example": certificate.counter_example,
        "counter_prediction": prediction,
        "distance": distance,
    }
    return Verdicts(index=index.numpy(), **{name: value.cpu().numpy() for name, value in columns.items()})


def require_order(verdicts: Verdicts, evaluation: Evaluation) -> None:
    """certified ≤ attacked ≤ clean, sample by sample.

    Raises:
        RuntimeError: if a sample is certified although the attack broke it, or the model misclassifies it. Then either
            a bound is wrong, or the network's own rounding decides.
    """
    standing = evaluation.standing(0)
    broken = verdicts.certified & ~(standing & evaluation.clean & verdicts.correct)
    if broken.any():
        places = ", ".join(map(str, verdicts.index[broken][:10]))
        raise RuntimeError(f"certified, but broken by an attack or misclassified: samples {places}")


def certified_accuracy(
    verdicts: Verdicts, certifier: Certifier, stage: str, seed: int, data: str | None = None
) -> AccuracyResult:
    """The share of certified samples with its protocol."""
    protocol = {**images_protocol(stage, data), "certifier": certifier.describe(), "seed": seed}
    return AccuracyResult(f"{stage}/certified_accuracy", int(verdicts.certified.sum()), len(verdicts.index), protocol)


def verdict_summary(verdicts: Verdicts, certifier: Certifier) -> dict[str, Any]:
    """Counts of statuses, who decided, work and time, and bounds that were not finite.

    What the model misclassifies is decided by "clean".
    """
    turns = [(name, verdicts.correct & (verdicts.member == turn)) for turn, name in enumerate(certifier.members)]
    decided = {
        name: {status: int((mine & (verdicts.status == i)).sum()) for i, status in enumerate(STATUSES) if i}
        for name, mine in [("clean", ~verdicts.correct), *turns]
    }
    return {
        "statuses": {name: int((verdicts.status == i).sum()) for i, name in enumerate(STATUSES)},
        "decided_by": decided,
        "domains": int(verdicts.work.sum()),
        "seconds": float(verdicts.seconds.sum()),
        "bounds_not_finite": int(np.isnan(verdicts.margin).sum()),
    }


def verdicts_csv(verdicts: Verdicts, certifier: Certifier, evaluation: Evaluation) -> str:
    """One line for each sample; what is not known is empty."""
    standing, correct, threat = evaluation.standing(0), verdicts.correct, certifier.threat
    rows = []
    for n, index in enumerate(verdicts.index):
        falsified = verdicts.status[n] == FALSIFIED
        rows.append(
            [
                index,
                verdicts.label[n],
                verdicts.clean_prediction[n],
                threat,
                f"{threat.radius:.8g}",
                STATUSES[verdicts.status[n]],
                certifier.members[verdicts.member[n]] if correct[n] else "clean",
                f"{verdicts.margin[n]:.6g}",
                "" if np.isnan(verdicts.radius[n]) else float(verdicts.radius[n]),
                verdicts.counter_prediction[n] if falsified else "",
                f"{verdicts.distance[n]:.6g}" if falsified else "",
                verdicts.work[n],
                int(standing[n]),
            ]
        )
    return csv_text(COLUMNS, rows)


def counter_examples(verdicts: Verdicts) -> bytes:
    """The counter-examples as an .npz file: `index` (n,), `images` (n, C, H, W), `prediction` (n,)."""
    falsified = verdicts.status == FALSIFIED
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        index=verdicts.index[falsified],
        images=verdicts.counter_example[falsified],
        prediction=verdicts.counter_prediction[falsified],
    )
    return stream.getvalue()
