"""xrobust's explanation metrics against those of Quantus: the same model, images, maps, settings and threads.

    python benchmarks/explanations.py --bundle runs/<run>/bundle --images 128

Prints two tables and writes them as CSV and JSON. In the first both do the same work: where a metric draws points,
noise or random networks, both get the same ones, and values are compared image by image. In the second ours runs with
its defaults and Quantus with its own, which take many more steps or samples: values are compared by the standard error
of ours over the images. The two take turns in one process on the images that the model gets right; the maps under test
are there before the clock starts. Time is that of the processor and the least of the rounds.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import platform
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure import load_subject
from quantus_calls import NEIGHBOURS, Quantus
from tables import Row, save, show
from threadpoolctl import threadpool_limits
from torch import Tensor

import xrobust
from xrobust.attributions import Gradient
from xrobust.errors import UserError, at_least
from xrobust.metrics import (
    MPRT,
    AverageSensitivity,
    DeletionAUC,
    ExplanationMetric,
    GiniIndex,
    MaxSensitivity,
    Probe,
    ROADMostRelevantFirst,
)
from xrobust.metrics.model_randomisation import layers_to_randomise
from xrobust.threat import ThreatModel


@dataclass(frozen=True)
class Line:
    """A metric as each of the two computes it.

    Attributes:
        title: what the table calls it.
        setting: what both do, or how the two differ.
        ours: the metric.
        theirs: the call that matches it.
    """

    title: str
    setting: str
    ours: ExplanationMetric
    theirs: Callable[[], Tensor]


class Timed(NamedTuple):
    """A value for each image, and the least processor seconds in which they were computed."""

    values: Tensor
    seconds: float


def lines_of_equal_work(probe: Probe) -> list[Line]:
    """Metrics that are defined alike, with the settings of ours."""
    quantus, with_our_maps = Quantus(probe), Quantus(probe, explained_by=probe.method)
    layers, (rows, columns) = len(layers_to_randomise(probe.model)), probe.x.shape[-2:]
    pixels = rows * columns
    counts = [round(pixels * tenth / 10) for tenth in range(1, 10)]
    shares = [count / pixels for count in counts]
    percentages = [100 * (count + 1e-6) / pixels for count in counts]  # Quantus rounds the number of pixels down

    def lines_of_maps(whose: str, peer: Quantus) -> list[Line]:
        networks = f"{layers} networks, {whose}"
        return [
            Line("max-sensitivity", f"{NEIGHBOURS} points, {whose}", MaxSensitivity(NEIGHBOURS), peer.max_sensitivity),
            Line("MPRT, top down", networks, MPRT(steps=layers), peer.mprt),
        ]

    return [
        Line("sparseness (Gini)", "", GiniIndex(), quantus.sparseness),
        *lines_of_maps("captum's gradient", quantus),
        *lines_of_maps("our gradient", with_our_maps),
        Line("pixel flipping", f"{rows} steps", DeletionAUC(rows), partial(quantus.pixel_flipping, columns)),
        Line(
            "ROAD, MoRF",
            f"{len(counts)} shares",
            ROADMostRelevantFirst(shares, noise=0.0),
            partial(quantus.road, percentages=percentages, noise=0.0),
        ),
    ]


def lines_of_defaults(probe: Probe) -> list[Line]:
    """Metrics whose defaults in Quantus take more steps or samples than ours."""
    quantus = Quantus(probe)
    flipping, sensitivity, road = DeletionAUC(), AverageSensitivity(), ROADMostRelevantFirst()
    return [
        Line("pixel flipping", f"{flipping.steps} / {probe.x[0, 0].numel()} steps", flipping, quantus.pixel_flipping),
        Line("average sensitivity", f"{sensitivity.samples} / 200 points", sensitivity, quantus.average_sensitivity),
        Line("ROAD, MoRF", f"{len(road.shares)} / 50 shares", road, quantus.road),
    ]


def timed(compute: Callable[[], Tensor]) -> Timed:
    """One call, with the global generators, from which Quantus draws, seeded anew."""
    np.random.seed(0)
    torch.manual_seed(0)
    began = time.process_time()
    values = compute()
    return Timed(values, time.process_time() - began)


def take_turns(line: Line, probe: Probe, rounds: int, warm_up: bool = True) -> list[Timed]:
    """Both sides of a line, ours first, over rounds in which they alternate; a round before them warms up."""
    turns = []
    for _ in range(rounds + warm_up):
        fresh = replace(probe, shared={})
        assert fresh.map.shape == probe.x.shape  # made before the clock starts, as the one that Quantus is given
        turns.append((timed(partial(line.ours.per_sample, fresh)), timed(line.theirs)))
    return [min(side, key=lambda done: done.seconds) for side in zip(*turns[warm_up:], strict=True)]


def row_of_equal_work(line: Line, ours: Timed, theirs: Timed) -> Row:
    return {
        "metric": line.title,
        "work": line.setting,
        "value": float(ours.values.mean()),
        "largest difference": float((ours.values - theirs.values).abs().max()),
        **times(ours, theirs),
    }


def row_of_defaults(line: Line, ours: Timed, theirs: Timed) -> Row:
    error = float(ours.values.std() / len(ours.values) ** 0.5)
    return {
        "metric": line.title,
        "ours / Quantus": line.setting,
        "our value": float(ours.values.mean()),
        "standard error": error,
        "its value": float(theirs.values.mean()),
        "difference / error": abs(float(ours.values.mean() - theirs.values.mean())) / error,
        **times(ours, theirs),
    }


def times(ours: Timed, theirs: Timed) -> Row:
    return {
        "our ms": 1000 * ours.seconds,
        "its ms": 1000 * theirs.seconds,
        "times faster": theirs.seconds / ours.seconds,
    }


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of a bundle, as train.py writes it")
    parser.add_argument("--images", type=int, default=128, help="test images, balanced over the classes")
    parser.add_argument("--eps", type=float, default=0.1, help="radius of the Linf ball of the sensitivities")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of equal work; one with the defaults")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch, NumPy and SciPy")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/benchmark_explanations"), help="folder of CSV and JSON"
    )
    chosen = parser.parse_args(arguments)
    at_least("explanations", 1, images=chosen.images, rounds=chosen.rounds, threads=chosen.threads)
    return chosen


def main(arguments: Sequence[str]) -> None:
    chosen = parsed(arguments)
    try:
        version = importlib.metadata.version("quantus")
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError("explanations compares with quantus, which is not installed") from error
    torch.set_num_threads(chosen.threads)
    subject = load_subject(chosen.bundle, chosen.images)
    probe = Probe(
        model=subject.model.model,
        x=subject.x,
        y=subject.y,
        index=torch.arange(len(subject.x)),
        method=Gradient(),
        threat=ThreatModel("linf", chosen.eps),
    )
    context = {
        "bundle": str(chosen.bundle),
        "images": len(probe),
        "threat": str(probe.threat),
        "rounds": chosen.rounds,
        "threads": chosen.threads,
        "processor": platform.machine(),
        "versions": {
            "xrobust": xrobust.__version__,
            "quantus": version,
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    print("\n".join(f"{name}: {value}" for name, value in context.items()))
    with threadpool_limits(chosen.threads):
        equal = [
            row_of_equal_work(line, *take_turns(line, probe, chosen.rounds)) for line in lines_of_equal_work(probe)
        ]
        show("equal work", equal)
        save(chosen.output, "equal_work", equal, context)
        defaults = [
            row_of_defaults(line, *take_turns(line, probe, 1, warm_up=False)) for line in lines_of_defaults(probe)
        ]
        show("defaults", defaults)
        save(chosen.output, "defaults", defaults, context)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")  # those of Quantus
    logging.disable(logging.WARNING)
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
