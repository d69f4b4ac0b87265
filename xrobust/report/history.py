"""metrics.csv: one row an epoch."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from xrobust.files import replace_file

Row = dict[str, float]


def read_history(file: Path) -> list[Row]:
    """The rows of a metrics.csv without their empty cells; none if there is no file."""
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(stream)]


def write_history(file: Path, rows: list[Row]) -> None:
    """Write the rows beside and rename; a value that a row lacks is an empty cell."""
    columns = ["epoch", *sorted({name for row in rows for name in row} - {"epoch"})]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
    replace_file(file, table.getvalue())


def trajectory(rows: list[Row], name: str) -> tuple[list[float], list[float]]:
    """The epochs in which a quantity was measured, and its values there."""
    measured = [row for row in rows if name in row]
    return [row["epoch"] for row in measured], [row[name] for row in measured]
