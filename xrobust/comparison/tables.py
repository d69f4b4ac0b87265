"""A comparison as CSV files."""

from __future__ import annotations

from xrobust.files import csv_text
from xrobust.report.comparison import Comparison

Cell = str | int | float | None


def tables(found: Comparison) -> dict[str, str]:
    """By file name: runs.csv, summary.csv, trajectories.csv, correlations.csv; what is undefined is an empty cell."""
    quantities = found.quantities
    runs: list[list[Cell]] = [
        [run.name, run.group, run.seed, *(run.values.get(quantity) for quantity in quantities)] for run in found.runs
    ]
    summary: list[list[Cell]] = [
        [mean.group, mean.quantity, mean.runs, mean.value, *(mean.interval or (None, None)), _note(mean.runs)]
        for mean in found.means
    ]
    trajectories: list[list[Cell]] = [
        [run.group, run.name, int(row["epoch"]), quantity, value]
        for run in found.runs
        for row in run.history
        for quantity, value in row.items()
        if quantity != "epoch"
    ]
    correlations: list[list[Cell]] = [
        [
            c.over,
            c.where,
            c.accuracy,
            c.metric,
            c.rho,
            *(c.interval or (None, None)),
            c.pairs,
            _protocols(c.one_protocol),
        ]
        for c in found.correlations
    ]
    return {
        "runs.csv": csv_text(("run", "group", "seed", *quantities), runs),
        "summary.csv": csv_text(("group", "quantity", "runs", "mean", "lower", "upper", "note"), summary),
        "trajectories.csv": csv_text(("group", "run", "epoch", "quantity", "value"), trajectories),
        "correlations.csv": csv_text(
            ("over", "where", "accuracy", "metric", "rho", "lower", "upper", "n", "note"), correlations
        ),
    }


def _protocols(one: bool) -> str:
    return "" if one else "measured in different ways"


def _note(runs: int) -> str:
    return "one run: no interval" if runs == 1 else ""
