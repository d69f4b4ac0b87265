"""What people see of a certification: how far it is, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from xrobust.export.result import RESULT_COLUMNS, result_cells
from xrobust.report.progress import LiveBar


class Batch(Protocol):
    """A batch of samples is certified."""

    @property
    def samples(self) -> int: ...
    @property
    def statuses(self) -> Mapping[str, int]: ...


class CertificationProgress(LiveBar):
    """How many samples have which status; call it with each batch.

    Args:
        total: samples.
    """

    def __init__(self, total: int):
        super().__init__(total, "certifying")
        self._counts: Counter[str] = Counter()

    def __call__(self, batch: Batch) -> None:
        self._counts.update(batch.statuses)
        counts = ", ".join(f"{count} {status}" for status, count in self._counts.items() if count)
        self.advance(batch.samples, f"certifying: {counts}")


def print_certification(summary: Mapping[str, Any], folder: object) -> None:
    """The accuracies with their protocol, and which certifier decided how many samples."""
    console = Console()
    results = Table()
    for column in RESULT_COLUMNS:
        results.add_column(column, justify="right" if column in ("value", "n") else "left")
    for result in summary["results"]:
        results.add_row(*result_cells(result))
    console.print(results)
    decided = Table(title="Who decided", title_justify="left")
    statuses = [status for status in summary["statuses"] if status != "unknown"]
    for column in ("certifier", *statuses):
        decided.add_column(column)
    for name, counts in summary["decided_by"].items():
        decided.add_row(name, *(str(counts[status]) for status in statuses))
    console.print(decided)
    if "radii" in summary:
        _print_radii(console, summary["radii"])
    console.print(", ".join(f"{count} {status}" for status, count in summary["statuses"].items()))
    if summary["bounds_not_finite"]:
        console.print(f"[bold]{summary['bounds_not_finite']} bounds were not finite[/bold]: those samples are open.")
    console.print(f"Certification: {folder}", soft_wrap=True)


def _print_radii(console: Console, radii: Mapping[str, Any]) -> None:
    """Certified accuracy at several radii, and the average radius."""
    table = Table(title="Certified accuracy at other radii", title_justify="left")
    for point in radii["counts"]:
        table.add_column(f"{point['radius']:.4g}", justify="right")
    table.add_row(*(f"{point['certified'] / radii['n']:.1%}" for point in radii["counts"]))
    console.print(table)
    console.print(f"Average certified radius: {radii['average_certified_radius']:.4g}")
