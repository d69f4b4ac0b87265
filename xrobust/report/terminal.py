"""What a run says at its end, on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from xrobust.export.result import RESULT_COLUMNS, result_cells
from xrobust.report.run import ARROWS, Run


def print_summary(run: Run) -> None:
    """The final accuracies with their protocol, and how the explanations changed."""
    console = Console()
    results = Table(title=run.title, title_justify="left")
    for column in RESULT_COLUMNS:
        results.add_column(column, justify="right" if column in ("value", "n") else "left")
    for r in run.results:
        results.add_row(*result_cells(r))
    console.print(results)
    changes = run.changes()
    if changes:
        table = Table(
            title="Explanations on the probe set, first epoch to last (↑ higher is better, ↓ lower is better)",
            title_justify="left",
        )
        for column in ("metric", "first", "last", "change"):
            table.add_column(column, justify="right" if column in ("first", "last") else "left", overflow="fold")
        for c in changes:
            arrow = ARROWS[c.higher_is_better]
            table.add_row(f"{c.name} {arrow}", f"{c.first:.4g}", f"{c.last:.4g}", c.verdict)
        console.print(table)
    console.print(f"Run folder: {run.folder}", soft_wrap=True)
