"""What people see of a certification: how far it is, and what came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from xrobust.export.result import RESULT_COLUMNS, result_cells


class Batch(Protocol):
    """A batch of samples is certified."""

    @property
    def samples(self) -> int: ...
    @property
    def statuses(self) -> Mapping[str, int]: ...


class CertificationProgress:
    """A bar over all samples with the time that is left, and how many have which status.

    Use it as a context manager, and call it with each batch.

    Args:
        total: samples.
    """

    def __init__(self, total: int):
        columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns)
        self._task = self._progress.add_task("certifying", total=total)
        self._counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, batch: Batch) -> None:
        self._counts.update(batch.statuses)
        counts = ", ".join(f"{count} {status}" for status, count in self._counts.items() if count)
        self._progress.update(self._task, advance=batch.samples, description=f"certifying: {counts}")


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
