"""Catastrophic overfitting: accuracy under one and under several steps, epoch by epoch, of several runs.

    python benchmarks/overfitting.py FGSM=runs/a N-FGSM=runs/b GradAlign=runs/c --figure docs/images/overfitting.png

Takes run folders of `python train.py pieces=[catastrophic_overfitting] …`. Prints a table of the last epoch and of the
first in which the gap exceeds that of an alarm, and draws all epochs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tables import Row, show

MAX_GAP = 0.3  # as in conf/pieces/catastrophic_overfitting.yaml
CURVES = {"FGSM": ("val/single_step_accuracy", "o--"), "PGD-10": ("val/multi_step_accuracy", "s-")}

Epochs = Mapping[str, Sequence[float]]


def read(run: Path) -> Epochs:
    """The two accuracies in percent, by epoch."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {name: [100 * float(row[key]) for row in rows] for name, (key, _) in CURVES.items()}


def row_of(name: str, epochs: Epochs) -> Row:
    """The run in a line."""
    single, multi = epochs["FGSM"], epochs["PGD-10"]
    alarms = [epoch for epoch, (one, many) in enumerate(zip(single, multi, strict=True)) if one - many > 100 * MAX_GAP]
    return {
        "run": name,
        "FGSM, last epoch %": single[-1],
        "PGD-10, last epoch %": multi[-1],
        "best PGD-10 %": max(multi),
        "first epoch with a gap": alarms[0] if alarms else "none",
    }


def draw(runs: Mapping[str, Epochs]) -> Figure:
    """A panel for each run."""
    figure = Figure(figsize=(2.6 * len(runs), 2.8), layout="constrained")
    panels = figure.subplots(1, len(runs), squeeze=False, sharey=True)[0]
    for axes, (name, epochs) in zip(panels, runs.items(), strict=True):
        for curve, (_, style) in CURVES.items():
            axes.plot(epochs[curve], style, markersize=3.5, linewidth=1, label=curve)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(-3, 103)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy on held-out images, %", fontsize=8)
    panels[0].legend(fontsize=8)
    return figure


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="run folders with the monitor's accuracies")
    parser.add_argument("--figure", type=Path, help="where to draw")
    chosen = parser.parse_args(arguments)
    runs = {name: read(Path(folder)) for name, _, folder in (run.partition("=") for run in chosen.runs)}
    show("Catastrophic overfitting", [row_of(name, epochs) for name, epochs in runs.items()])
    if chosen.figure:
        draw(runs).savefig(chosen.figure, dpi=110)


if __name__ == "__main__":
    main(sys.argv[1:])
