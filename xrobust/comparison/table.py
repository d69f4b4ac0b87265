"""A table of runs as W&B exports it."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrobust.comparison.folder import ACCURACIES, attack_line, validation_accuracies
from xrobust.comparison.run import Measurement, Run
from xrobust.errors import UserError

SOURCE = "W&B table"
NOT_METRICS = ("explain/seconds", "explain/skipped")


def read_table(file: Path) -> tuple[list[Run], dict[str, str]]:
    """The finished runs of a CSV file, and why others are left out.

    Columns: `Name`; `State`, where only "finished" counts; log keys of the summary, which hold a slash
    ("test/robust_accuracy", and "….max" where W&B keeps the highest value); everything else is configuration, its
    dots the levels ("threat.eps").

    Raises:
        UserError: if there is no column Name.
    """
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or "Name" not in rows[0]:
        raise UserError(f"runs={file} must be a table of runs with a column Name")
    runs, left_out = [], {}
    for row in rows:
        state = row.get("State") or "finished"
        if state == "finished":
            runs.append(_run(file, {key: cell for key, cell in row.items() if key and cell}))
        else:
            left_out[f"{file}: {row['Name']}"] = f"incomplete: its state is {state}"
    return runs, left_out


def _run(file: Path, row: Mapping[str, str]) -> Run:
    config: dict[str, Any] = {}
    values: dict[str, float] = {}
    for key, cell in row.items():
        if "/" in key:
            values.setdefault(key.removesuffix(".max"), _number(cell))
        elif key not in ("Name", "State"):
            _put(config, key.split("."), cell)
    return Run(row.get("Name", ""), file, config, _measurements(values, config))


def _measurements(values: Mapping[str, float], config: Mapping[str, Any]) -> list[Measurement]:
    """Accuracies of the test, or of the validation where there is no test; explanation metrics."""
    found = []
    for kind in ACCURACIES:
        protocol: dict[str, Any] = {"source": SOURCE, "split": "test", "seed": config.get("seed")}
        if kind == "robust_accuracy":
            node = config.get("test_attack")
            protocol["attack"] = {"node": node, "summary": attack_line(node) or "the run's test_attack"}
        if kind == "certified_accuracy":
            node = config.get("certifier")
            protocol["certifier"] = {"node": node, "summary": attack_line(node) or "the run's certifier"}
        if math.isfinite(values.get(f"test/{kind}", math.nan)):
            found.append(Measurement(f"test/{kind}", values[f"test/{kind}"], protocol))
    tested = {measurement.quantity.partition("/")[2] for measurement in found}
    others = validation_accuracies(values, config, f"{SOURCE}, best value logged")
    found += [measurement for measurement in others if measurement.quantity.partition("/")[2] not in tested]
    protocol = {"source": f"{SOURCE}, last value logged", "split": "validation", "seed": None}
    for key, value in values.items():
        if key.startswith("explain/") and key not in NOT_METRICS and not key.endswith("/valid"):
            found += [Measurement(key, value, protocol)] if math.isfinite(value) else []
    return found


def _put(config: dict[str, Any], path: list[str], cell: str) -> None:
    """Set a value some levels down; a level that is a value already stays one."""
    *above, last = path
    for name in above:
        config = config.setdefault(name, {})
        if not isinstance(config, dict):
            return
    config.setdefault(last, cell)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
