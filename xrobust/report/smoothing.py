"""What people see of a smoothed classifier's certificates: the curve, and tables on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from xrobust.export.result import result_cells


def draw_radii(radius: NDArray, correct: NDArray, title: str, x_label: str) -> Figure:
    """Certified accuracy over the radius: the share of images that are right with at least this radius.

    Args:
        radius: (N,), 0 for abstentions.
        correct: (N,) bool.
        title: of the figure.
        x_label: the radius and its norm.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    radii = np.sort(radius[correct])
    left = np.arange(len(radii), -1, -1) / len(radius)
    axes.step(np.concatenate([[0.0], radii]), left, where="post", label="certified accuracy")
    area = f"ACR {radii.sum() / len(radius):.3f}"
    axes.plot([], [], " ", label=area)
    axes.set(xlabel=x_label, ylabel="accuracy", xlim=(0, None), ylim=(0, 1.02), title=title)
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def print_smoothing(summary: Mapping[str, Any], folder: object) -> None:
    """Certified accuracy at each radius, the protocol, the average radius, and what it took."""
    console = Console(highlight=False)
    table = Table(title=summary["protocol"]["summary"], title_justify="left")
    for column in ("radius", "certified accuracy", "95% interval", "n"):
        table.add_column(column, justify="right")
    for result in summary["results"]:
        _, value, interval, n, _ = result_cells(result)
        table.add_row(f"{result['protocol']['certifier']['radius']:g}", value, interval, n)
    console.print(table)
    if "average_certified_radius" in summary:
        console.print(f"Average certified radius: {summary['average_certified_radius']:.4f}")
    console.print(f"{summary['right']} right, {summary['wrong']} wrong, {summary['abstained']} abstained")
    console.print(f"{summary['samples_per_image']:.0f} samples an image, {summary['saved']:.1%} saved")
    console.print(f"Each certificate is wrong with probability at most {summary['failure_probability']:g}.")
    console.print(f"Smoothing: {folder}", soft_wrap=True)
