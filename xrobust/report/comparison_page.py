"""compare.html: one self-contained page about several runs."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from xrobust.report.cells import Picture
from xrobust.report.comparison import MINIMUM, Comparison, Correlation, in_words, label, number
from xrobust.report.html import image, page, table

NBSP = "\N{NO-BREAK SPACE}"
BROKEN = 'style="overflow-wrap:anywhere"'  # paths and log keys are longer than a phone is wide
# Wide enough to read on a phone; as many beside one another as there is room for.
TILES = '<div style="display:flex;flex-wrap:wrap;gap:.25rem">'
TILE = "width:16.5rem;max-width:100%"
FIGURES = {
    "metrics": (
        "Final values",
        "A mark is a run; the black line above it is the mean of the group with its 95% interval, if it has two or "
        "more runs. ↑ higher is better, ↓ lower is better.",
    ),
    "scatter": ("Robust accuracy against each explanation metric", "A mark is a run."),
    "eps_sweep": ("Over the radius of the training", "A mark is a run; training without a threat model stands at 0."),
    "trajectories": ("Over the epochs", "A line is a run; its metrics are those on the validation images."),
    "panels": (
        "Maps of the same images",
        "The gradient of the label's logit, by the first run of each group: red speaks for the label, blue against it. "
        "Each map has its own scale, so maps are to be compared in shape, not in size.",
    ),
}


def comparison_page(found: Comparison, drawn: Mapping[str, Picture]) -> str:
    """The whole page; `drawn` holds the figures by name."""
    parts = [_summary(found), _compared(found), _means(found)]
    for name, (title, text) in FIGURES.items():
        if name in drawn:
            parts += [f"<h2>{title}</h2><p>{text}</p>", _figure(name, drawn[name])]
    return page(
        f"Comparison of {len(found.runs)} runs in {len(found.groups)} groups",
        "\n".join([*parts, _across(found), _within(found), _warnings(found)]),
    )


def _summary(found: Comparison) -> str:
    """How much was compared, and what the correlations over all runs say."""
    parts = [f"Groups: {', '.join(found.groups)}."]
    if found.left_out:
        parts.append(f"Left out: {', '.join(found.left_out)}.")
    if found.warnings:
        parts.append(f"Warnings at the end of the page: {len(found.warnings)}.")
    told: dict[str, list[str]] = {}
    for one in found.correlations:
        if one.over == "all runs" and one.interval is not None:
            told.setdefault(in_words(one), []).append(label(one.metric, found.directions))
    lines = [f"{finding}: {', '.join(metrics)}" for finding, metrics in told.items()]
    return f"<p {BROKEN}>{html.escape(' '.join(parts))}</p>" + (f"<p>Over all runs:</p>{_list(lines)}" if lines else "")


def _compared(found: Comparison) -> str:
    runs = [
        [
            run.name,
            run.group,
            run.seed,
            "—" if run.radius is None else f"{run.radius:.4g}",
            "—" if run.epoch is None else f"{run.epoch:g}",
            run.place,
        ]
        for run in found.runs
    ]
    protocols = [
        [
            ", ".join(label(name, {}) for name in line.quantities),
            "all" if list(line.groups) == found.groups else ", ".join(line.groups),
            line.text,
            "—" if line.images is None else str(line.images),
            ", ".join(line.seeds) or "—",
        ]
        for line in found.protocols
    ]
    return f"""<h2>What was compared</h2>
{table(["run", "group", "seed", "training radius", "selected epoch", "place"], runs, numbers={2, 3, 4})}
<h3>How everything was measured</h3>
<p>Values are averaged only where they share a protocol; seeds may differ.</p>
{table(["quantities", "groups", "protocol", "images", "seeds"], protocols, numbers={3})}"""


def _warnings(found: Comparison) -> str:
    if not found.warnings:
        return "<h2>Warnings</h2><p>None.</p>"
    return f"<h2>Warnings</h2>{_list(found.warnings)}"


def _means(found: Comparison) -> str:
    by_key = {(mean.group, mean.quantity): mean for mean in found.means}
    rows = []
    for quantity in found.quantities:
        row = [label(quantity, found.directions)]
        for group in found.groups:
            mean = by_key.get((group, quantity))
            if mean is None:
                row.append("—")
            elif mean.interval is None:
                row.append(f"{number(mean.value, quantity)} (1 run)".replace(" ", NBSP))
            else:
                low, high = (number(end, quantity) for end in mean.interval)
                row.append(f"{number(mean.value, quantity)} [{low}, {high}] ({mean.runs} runs)".replace(" ", NBSP))
        rows.append(row)
    return f"""<h2>Means</h2>
<p>Mean [95% Student-t interval over the runs]; one run has no interval. ↑ higher is better, ↓ lower is better.</p>
{table(["quantity", *found.groups], rows, numbers=range(1, 1 + len(found.groups)))}"""


def _across(found: Comparison) -> str:
    """Correlations over runs, in words and numbers; the undefined ones are in the table of the file alone."""
    title = "<h2>Does it move with robust accuracy?</h2>"
    over = [c for c in found.correlations if c.over != "epochs of a run"]
    if not over:
        return f"{title}<p>Not asked over the runs: their robust accuracy is unknown, or has different protocols.</p>"
    rows = [
        [label(c.metric, found.directions), (c.where or "all runs").replace(" ", NBSP), *_cells(c), in_words(c)]
        for c in over
        if c.rho is not None
    ]
    undefined = f" {len(over) - len(rows)} are undefined, with fewer than {MINIMUM} runs or a constant."
    chance = f" Of {len(rows)} such intervals about {round(0.05 * len(rows))} would not hold 0 by chance alone."
    text = (
        f"<p>Spearman's ρ with {html.escape(over[0].accuracy)}, its 95% bootstrap interval, and the number of runs. "
        "Over all runs, a relation may be one between the groups only. With fewer than ten runs the intervals are too "
        f"narrow.{chance if len(rows) >= 10 else ''}{undefined if len(rows) < len(over) else ''}</p>"
    )
    head = ["metric", "over", "ρ", "95% interval", "runs", "finding"]
    return title + text + (table(head, rows, numbers={2, 4}) if rows else "")


def _within(found: Comparison) -> str:
    """Correlations over the epochs of each run."""
    own = [c for c in found.correlations if c.over == "epochs of a run"]
    if not own:
        return ""
    runs, metrics = (list(dict.fromkeys(values)) for values in ((c.where for c in own), (c.metric for c in own)))
    cell = {(c.where, c.metric): c for c in own}
    rows = [[label(m, found.directions), *(_one(cell.get((run, m))) for run in runs)] for m in metrics]
    return f"""<h3>Over the epochs of each run</h3>
<p>Spearman's ρ of val/robust_accuracy and the metric, and its interval: ▲ rises, ▼ falls, · the interval holds 0.
Epochs follow one another, so they are not independent, and the intervals are too narrow.</p>
{table(["metric", *runs], rows, numbers=range(1, 1 + len(runs)))}"""


def _cells(found: Correlation) -> list[str]:
    rho = "—" if found.rho is None else f"{found.rho:+.2f}"
    interval = "—" if found.interval is None else "{:+.2f} to {:+.2f}".format(*found.interval).replace(" ", NBSP)
    return [rho, interval, str(found.pairs)]


def _one(found: Correlation | None) -> str:
    if found is None or found.rho is None:
        return "—"
    sign = {"rises": "▲", "falls": "▼"}.get(in_words(found).partition(" ")[0], "·")
    rho, interval, _ = _cells(found)
    return f"{sign} {rho} [{interval}]".replace(" ", NBSP)


def _figure(name: str, drawn: Picture) -> str:
    if not drawn.tiles:
        return image(drawn.png, FIGURES[name][0])
    alts = [f"{title}: {FIGURES[name][0]}" if title else "Legend: the groups" for title, _ in drawn.tiles]
    tiles = (image(tile, alt, style=TILE) for alt, (_, tile) in zip(alts, drawn.tiles, strict=True))
    return TILES + "".join(tiles) + "</div>"


def _list(lines: Sequence[str]) -> str:
    return f"<ul {BROKEN}>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"
