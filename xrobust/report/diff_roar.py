"""DiffROAR as a table, as a figure, and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from xrobust.files import csv_text

MARKERS = "os^Dvx+*"  # told apart without colour, too


class Score(Protocol):
    """Accuracies of networks that saw the most, or least, relevant share of the pixels; one for each seed."""

    @property
    def attribution(self) -> str: ...
    @property
    def share(self) -> float: ...
    @property
    def most(self) -> tuple[float, ...]: ...
    @property
    def least(self) -> tuple[float, ...]: ...
    @property
    def diff_roar(self) -> float: ...


def scores_csv(scores: Sequence[Score]) -> str:
    """One row for each attribution, share and seed."""
    rows = [
        (score.attribution, score.share, seed, *pair)
        for score in scores
        for seed, pair in enumerate(zip(score.most, score.least, strict=True))
    ]
    return csv_text(("attribution", "share", "seed", "most_relevant_accuracy", "least_relevant_accuracy"), rows)


def draw_scores(scores: Sequence[Score]) -> Figure:
    """DiffROAR over the share of pixels, a line for each attribution, and the seeds around it."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes: Any = figure.subplots()
    axes.axhline(0, color="grey", linewidth=1)
    for i, name in enumerate(dict.fromkeys(score.attribution for score in scores)):
        own = [score for score in scores if score.attribution == name]
        shares = [score.share for score in own]
        axes.plot(shares, [score.diff_roar for score in own], marker=MARKERS[i % len(MARKERS)], label=name)
        low = [min(score.most) - max(score.least) for score in own]
        high = [max(score.most) - min(score.least) for score in own]
        axes.fill_between(shares, low, high, alpha=0.15)
    axes.set(xlabel="share of the pixels that are kept", ylabel="DiffROAR")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def print_scores(scores: Sequence[Score], folder: object) -> None:
    """The scores, and where the files are."""
    console = Console()
    table = Table(title="DiffROAR: accuracy after retraining", title_justify="left", box=SIMPLE_HEAD)
    for column in ("attribution", "pixels kept", "most relevant", "least relevant", "DiffROAR ↑"):
        table.add_column(column, justify="left" if column == "attribution" else "right")
    for score in scores:
        most, least = (" / ".join(f"{value:.1%}" for value in values) for values in (score.most, score.least))
        table.add_row(score.attribution, f"{score.share:.0%}", most, least, f"{score.diff_roar:+.3f}")
    console.print(table)
    console.print(f"DiffROAR: {folder}", soft_wrap=True)
