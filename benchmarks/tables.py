"""Tables of measurements: on the terminal, as CSV, as JSON with what they were measured on."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def show(title: str, rows: Sequence[Row]) -> None:
    """A table in Markdown."""
    print(f"\n## {title}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(_written(value) for value in row.values())} |", flush=True)


def save(folder: Path, name: str, rows: Sequence[Row], context: Row) -> None:
    """`<name>.csv` with the rows, `<name>.json` with the context and the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({**context, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def _written(value: object) -> str:
    if value is None:
        return ""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )
