"""Explanation metrics of several groups of models, each group one training method with several seeds.

    python benchmarks/claims.py standard=runs/a/explanations/linf_0.3,runs/b/explanations/linf_0.3 pgd_at=… \\
        --figure docs/images/claims_mnist.png

Takes folders of `python -m xrobust.explain` with the same metrics. Prints a table, mean ± standard deviation
over the seeds (± standard error over the images for a group of one), and draws every seed.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tables import Row, show

Value = tuple[float, float]  # the mean over the images, and its standard error
ARROWS = {True: "↑", False: "↓"}
MARKERS = "osD^vPX*"
COLUMNS = 5
LOGARITHMIC = 30  # the ratio of values from which an axis is


def read(folder: Path) -> dict[str, Value]:
    """By "metric ↑ attribution", the value and its standard error."""
    card = json.loads((folder / "explanation_card.json").read_text(encoding="utf-8"))
    rows = [row for point in card["points"] for row in point["rows"]]
    return {
        f"{row['metric']} {ARROWS[row['higher_is_better']]} {row['attribution'] or ''}".strip(): (
            _number(row["mean"]),
            _number(row["standard_error"]),
        )
        for row in rows
    }


def summary(values: Sequence[Value]) -> str:
    """Mean ± spread."""
    means = [mean for mean, _ in values]
    spread = statistics.stdev(means) if len(means) > 1 else values[0][1]
    return f"{statistics.mean(means):.3g} ± {spread:.2g}"


def rows_of(groups: Mapping[str, Sequence[Mapping[str, Value]]]) -> list[Row]:
    """A row for each metric, a column for each group."""
    keys = next(iter(groups.values()))[0]
    return [
        {"metric": key, **{name: summary([one[key] for one in models]) for name, models in groups.items()}}
        for key in keys
    ]


def draw(groups: Mapping[str, Sequence[Mapping[str, Value]]]) -> Figure:
    """A panel for each metric; a mark for each model with its standard error."""
    keys = list(next(iter(groups.values()))[0])
    rows = math.ceil(len(keys) / COLUMNS)
    figure = Figure(figsize=(2.5 * COLUMNS, 2.2 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, key in zip(panels, keys, strict=False):
        metric, _, attribution = key.partition(" ")
        axes.set_title(f"{metric} {attribution}".replace(" ", "\n", 1), fontsize=8)
        for place, models in enumerate(groups.values()):
            shifts = [place + 0.12 * (i - (len(models) - 1) / 2) for i in range(len(models))]
            values, errors = zip(*(one[key] for one in models), strict=True)
            axes.errorbar(shifts, values, errors, fmt=MARKERS[place % len(MARKERS)], markersize=4, capsize=2)
        means = [one[key][0] for models in groups.values() for one in models]
        if min(means) > 0 and max(means) > LOGARITHMIC * min(means):
            axes.set_yscale("log")
        axes.set_xticks(range(len(groups)), list(groups), fontsize=7, rotation=20)
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.tick_params(axis="y", labelsize=7)
        axes.grid(alpha=0.3)
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    return figure


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="+", metavar="NAME=FOLDER,FOLDER", help="explanation folders of a group")
    parser.add_argument("--figure", type=Path, help="where to draw")
    chosen = parser.parse_args(arguments)
    pairs = [group.partition("=") for group in chosen.groups]
    groups = {name: [read(Path(folder)) for folder in folders.split(",")] for name, _, folders in pairs}
    show("Explanations", rows_of(groups))
    if chosen.figure:
        draw(groups).savefig(chosen.figure, dpi=110)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


if __name__ == "__main__":
    main(sys.argv[1:])
