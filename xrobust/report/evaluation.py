"""What people look at after an evaluation: the security curve, adversarial examples, tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from xrobust.export.result import RESULT_COLUMNS, result_cells
from xrobust.report.panel import show_image

Point = Mapping[str, Any]


def draw_curve(points: Sequence[Point], title: str, x_label: str) -> Figure:
    """Accuracy over the radius, with its 95% interval; `points` hold `eps`, `value` and `interval_95`."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    eps = [point["eps"] for point in points]
    low, high = zip(*(point["interval_95"] for point in points), strict=True)
    axes.fill_between(eps, low, high, alpha=0.2, linewidth=0, label="95% interval")
    axes.plot(eps, [point["value"] for point in points], "-o", markersize=4, label="accuracy under attack")
    axes.set(xlabel=x_label, ylabel="accuracy", ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def draw_examples(
    images: NDArray, adversarial: NDArray, threats: Sequence[str], captions: Sequence[Sequence[str]]
) -> Figure:
    """One column an image; rows: the image, then for each threat model its adversarial example and the perturbation.

    Perturbations are magnified: grey is zero, and black and white are the largest change of the row.

    Args:
        images: (k, C, H, W) in [0, 1], k ≥ 1.
        adversarial: (k, threats, C, H, W).
        threats: their names.
        captions: for the image and each threat, a text for each column: (1 + threats, k).
    """
    rows = 1 + 2 * len(threats)
    figure = Figure(figsize=(1.0 * len(images) + 1.4, 1.25 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, len(images), squeeze=False)
    _row(grid[0], images, "image", captions[0])
    for i, threat in enumerate(threats):
        delta = adversarial[:, i] - images
        factor = 0.5 / (float(np.abs(delta).max()) or 1.0)
        _row(grid[1 + 2 * i], adversarial[:, i], threat, captions[1 + i])
        _row(grid[2 + 2 * i], 0.5 + factor * delta, f"change × {factor:.3g}", [""] * len(images))
    return figure


def _row(axes: NDArray, pictures: NDArray, label: str, captions: Sequence[str]) -> None:
    for one, picture, caption in zip(axes, pictures, captions, strict=True):
        show_image(one, picture)
        one.set_title(caption, fontsize=8)
    axes[0].set_ylabel(label, fontsize=8)


def print_evaluation(summary: Mapping[str, Any], folder: object) -> None:
    """The accuracies with their protocol, the attacks turn by turn, and the findings of the checks."""
    console = Console()
    results = _table("", *RESULT_COLUMNS)
    for r in summary["results"]:
        results.add_row(*result_cells(r))
    console.print(results)
    turns = _table("Attack by attack", "threat model", "attack", "standing", "seconds")
    for turn in summary["turns"]:
        turns.add_row(turn["threat"], turn["attack"], str(turn["standing"]), f"{turn['seconds']:.1f}")
    console.print(turns)
    _print_checks(console, summary["checks"], summary["warnings"])
    console.print(f"Evaluation: {folder}", soft_wrap=True)


def _print_checks(console: Console, checks: Sequence[Mapping[str, Any]], warnings: Sequence[Mapping[str, Any]]) -> None:
    if not checks:
        console.print("No check for gradient masking was made.")
        return
    console.print(f"Checks for gradient masking: {len(checks)}, of which {len(warnings)} warn.")
    for warning in warnings:
        console.print(f"[bold]{warning['check']}[/bold]: ", end="")
        console.print(f"{warning['measured']} (at most {warning['threshold']:.1%}).", markup=False, highlight=False)
        console.print(f"  {warning['advice']} ({warning['reference']})", markup=False, highlight=False)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in ("value", "n", "standing", "seconds") else "left")
    return table
