"""What a run folder holds, read back for reports."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xrobust.report.history import Row, read_history, trajectory
from xrobust.report.panel import load_panels

ARROWS = {True: "↑", False: "↓", None: ""}  # which direction is better


@dataclass(frozen=True)
class Change:
    """How an explanation metric moved from the first epoch in which it was measured to the last."""

    name: str
    first: float
    last: float
    higher_is_better: bool | None
    epochs: int = 2  # in how many it was measured

    @property
    def verdict(self) -> str:
        """ "better", "worse", "unchanged", "measured once", or "" for metrics without a direction."""
        if self.higher_is_better is None:
            return ""
        if self.epochs == 1:
            return "measured once"
        if self.first == self.last:
            return "unchanged"
        return "better" if (self.last > self.first) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Run:
    """A finished or running training run."""

    folder: Path
    title: str
    history: list[Row]
    directions: dict[str, bool | None]
    panels: dict[int, dict[str, NDArray]]
    results: list[dict[str, Any]]
    card: dict[str, Any] | None = None  # the explanation card

    def changes(self) -> list[Change]:
        """One `Change` an explanation metric; an epoch that defines it for no image has not measured it."""
        changes = []
        for name, better in self.directions.items():
            values = [value for value in trajectory(self.history, name)[1] if math.isfinite(value)]
            if values:
                changes.append(Change(name.removeprefix("explain/"), values[0], values[-1], better, len(values)))
        return changes


def read_run(folder: Path, title: str, results: list[dict[str, Any]]) -> Run:
    """Read metrics.csv, the panels, the metrics' directions and the explanation card of a run folder."""
    directions = _read_json(folder / "explanation_metrics.json") or {}
    return Run(
        folder,
        title,
        read_history(folder / "metrics.csv"),
        directions,
        load_panels(folder / "panels"),
        results,
        _read_json(folder / "explanation_card.json"),
    )


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
