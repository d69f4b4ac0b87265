"""report.html: one self-contained page about a run."""

from __future__ import annotations

import html

from xrobust.export.result import RESULT_COLUMNS, result_cells, warnings_in
from xrobust.files import replace_file
from xrobust.report.explanations import card_section
from xrobust.report.figure import draw_report
from xrobust.report.html import image, page, table
from xrobust.report.panel import png
from xrobust.report.run import ARROWS, Run

ALT = (
    "Accuracies and explanation metrics over the epochs, and attribution maps of the same images at the first, "
    "middle and last epoch"
)


def write_report(run: Run) -> None:
    """Write report.png and report.html into the run folder, each beside and renamed."""
    picture = png(draw_report(run))
    replace_file(run.folder / "report.png", picture)
    replace_file(run.folder / "report.html", page(run.title, _body(run, picture)))


def _body(run: Run, picture: bytes) -> str:
    results = [result_cells(r) for r in run.results]
    changes = [
        [f"{c.name} {ARROWS[c.higher_is_better]}", f"{c.first:.4g}", f"{c.last:.4g}", c.verdict] for c in run.changes()
    ]
    return f"""<h2>Results</h2>
{table(RESULT_COLUMNS, results, numbers={1, 3})}
{_warnings(warnings_in(run.results))}
<h2>Explanations on the probe set, first epoch to last</h2>
<p>↑ higher is better, ↓ lower is better.</p>
{table(["metric", "first", "last", "change"], changes, numbers={1, 2})}
<h2>Over the epochs</h2>
{image(picture, ALT)}
{"" if run.card is None else card_section(run.card)}"""


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
    return f"<h3>Warnings</h3><p>The accuracies under attack may be too high:</p><ul>{items}</ul>"
