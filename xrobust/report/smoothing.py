"""A smoothed classifier's certificates on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from xrobust.export.result import result_cells


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
