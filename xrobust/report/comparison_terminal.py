"""A comparison on the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from xrobust.report.comparison import Comparison, in_words, is_metric, label, number


def print_comparison(found: Comparison, folder: object) -> None:
    """The accuracies of each group, what moves with robust accuracy, the warnings, and where the files are."""
    console = Console(highlight=False)
    means = Table(title="Mean accuracies [95% interval over the runs]", title_justify="left", box=SIMPLE_HEAD)
    for column in ("group", "quantity", "mean", "runs"):
        means.add_column(column, justify="right" if column in ("mean", "runs") else "left")
    for mean in found.means:
        if not is_metric(mean.quantity):
            ends = [] if mean.interval is None else [number(end, mean.quantity) for end in mean.interval]
            shown = number(mean.value, mean.quantity) + (f" [{', '.join(ends)}]" if ends else "")
            means.add_row(mean.group, mean.quantity, shown.replace("[", r"\["), str(mean.runs))
    console.print(means)
    for one in found.correlations:
        if one.over == "all runs" and one.rho is not None:
            name = label(one.metric, found.directions)
            console.print(f"{name}: {in_words(one)} (ρ = {one.rho:+.2f}, {one.pairs} runs)", markup=False)
    for warning in found.warnings:
        console.print(f"Warning: {warning}", markup=False)
    console.print(f"Comparison: {folder}", markup=False, soft_wrap=True)
