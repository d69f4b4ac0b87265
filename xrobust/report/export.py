"""What people see of an export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from xrobust.export.verify import TOLERANCE

COLUMNS = ("format", "file", "size", "max |Δ|", "differentiable")


def print_export(rows: Mapping[str, Mapping[str, Any]], folder: object) -> None:
    """Each format with its file, its size, and how far its logits are from the model's after reading it back."""
    console = Console()
    table = Table()
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[2:4] else "left")
    for name, row in rows.items():
        gradients = "yes" if row["differentiable"] else "no"
        table.add_row(name, row["file"], f"{row['bytes'] / 2**20:.2f} MiB", f"{row['max_difference']:.1e}", gradients)
    console.print(table)
    images = next(iter(rows.values()))["images"]
    console.print(f"max |Δ|: of the logits on {images} real images, relative above 1; allowed is {TOLERANCE:g}.")
    console.print(f"Export: {folder}", soft_wrap=True)
