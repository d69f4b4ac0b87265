"""report.html: one self-contained page about a run."""

from __future__ import annotations

import base64
import html
import io

from matplotlib.figure import Figure

from xrobust.export.result import RESULT_COLUMNS, result_cells, warnings_in
from xrobust.files import replace_file
from xrobust.report.figure import draw_report
from xrobust.report.run import ARROWS, Run

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid #ccc; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; }
"""


def write_report(run: Run) -> None:
    """Write report.png and report.html into the run folder, each beside and renamed."""
    figure = draw_report(run)
    png = _png(figure)
    replace_file(run.folder / "report.png", png)
    replace_file(run.folder / "report.html", _page(run, png))


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def _page(run: Run, png: bytes) -> str:
    results = [result_cells(r) for r in run.results]
    changes = [
        [f"{c.name} {ARROWS[c.higher_is_better]}", f"{c.first:.4g}", f"{c.last:.4g}", c.verdict] for c in run.changes()
    ]
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(run.title)}</title>
<style>{STYLE}</style>
<h1>{html.escape(run.title)}</h1>
<h2>Results</h2>
{_table(list(RESULT_COLUMNS), results, numbers={1, 3})}
{_warnings(warnings_in(run.results))}
<h2>Explanations on the probe set, first epoch to last</h2>
<p>↑ higher is better, ↓ lower is better.</p>
{_table(["metric", "first", "last", "change"], changes, numbers={1, 2})}
<h2>Over the epochs</h2>
<img alt="Accuracies and explanation metrics over the epochs, and attribution maps of the same images at the first,
middle and last epoch" src="data:image/png;base64,{base64.b64encode(png).decode()}">
</html>
"""


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
    return f"<h3>Warnings</h3><p>The accuracies under attack may be too high:</p><ul>{items}</ul>"


def _table(head: list[str], rows: list[list[str]], numbers: set[int]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=number' if i in numbers else ''}>{html.escape(cell)}</td>" for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
