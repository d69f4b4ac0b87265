"""The figures of a comparison; a group has its colour and its marker in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from xrobust.report.cells import MARKERS, Cells, cells
from xrobust.report.comparison import Comparison, is_metric, label
from xrobust.report.history import trajectory
from xrobust.report.panel import show_image, show_map

HEIGHT = 2.3


class Maps(Protocol):
    """The maps of a group's model, (k, C, H, W), and its predictions, (k,)."""

    @property
    def group(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def maps(self) -> NDArray: ...
    @property
    def predictions(self) -> NDArray: ...


def draw_metrics(found: Comparison) -> Cells:
    """A cell for each quantity: a line for each group, with a mark for each run and the mean with its interval."""
    groups = found.groups
    room = min(1.3, 0.25 + 0.055 * max(map(len, groups)))
    drawn = cells(len(found.quantities), 1.0 + 0.32 * len(groups), left=room, bottom=0.4)
    means = {(mean.group, mean.quantity): mean for mean in found.means}
    for axes, quantity in zip(drawn.axes, found.quantities, strict=True):
        for place, group in enumerate(groups):
            values = [run.values[quantity] for run in found.members(group) if quantity in run.values]
            if not values:
                continue
            axes.plot(values, [place] * len(values), **_mark(place), linestyle="", markersize=5, alpha=0.7)
            mean = means[group, quantity]
            if mean.interval is not None:
                axes.plot([mean.value], [place - 0.28], marker="|", markersize=7, color="black")
                axes.plot(mean.interval, [place - 0.28] * 2, color="black", linewidth=1)
        axes.set_yticks(range(len(groups)), [_short(group) for group in groups])
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _title(axes, quantity, found)
    return drawn


def draw_trajectories(found: Comparison) -> Cells | None:
    """A cell for each quantity over the epochs, a line for each run; none if no run has a history."""
    known = dict.fromkeys(name for run in found.runs for row in run.history for name in row)
    quantities = sorted((name for name in known if name != "epoch"), key=is_metric)
    if not quantities:
        return None
    drawn = cells(1 + len(quantities), HEIGHT)
    _legend(drawn.axes[0], found.groups, "-")
    for axes, quantity in zip(drawn.axes[1:], quantities, strict=True):
        for place, group in enumerate(found.groups):
            for run in found.members(group):
                epochs, values = trajectory(list(run.history), quantity)
                axes.plot(epochs, values, **_mark(place), markersize=3, linewidth=1)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel("epoch", fontsize=7, labelpad=1)
        _title(axes, quantity, found)
    return drawn


def draw_scatter(found: Comparison) -> Cells | None:
    """Each explanation metric against the robust accuracy, a mark for each run; none without one of the two."""
    accuracy = found.accuracy
    return (
        None
        if accuracy is None
        else _against(
            found,
            {run.name: run.values.get(accuracy) for run in found.runs},
            accuracy,
            filter(is_metric, found.quantities),
        )
    )


def draw_eps_sweep(found: Comparison) -> Cells | None:
    """Each quantity over the radius of the training, 0 without one; none unless runs have different radii."""
    if len({run.radius for run in found.runs} - {None}) < 2:
        return None
    return _against(found, {run.name: run.radius or 0.0 for run in found.runs}, "training radius", found.quantities)


def draw_panels(images: NDArray, labels: NDArray, rows: Sequence[Maps]) -> Figure:
    """The images, and below them a row of maps for each group, with what its model predicts."""
    columns = len(images)
    figure = Figure(figsize=(1.0 + 1.1 * columns, 0.2 + 1.25 * (1 + len(rows))), layout="constrained")
    grid = figure.subplots(1 + len(rows), columns, squeeze=False)
    for axes, image, true in zip(grid[0], images, labels, strict=True):
        show_image(axes, image)
        axes.set_title(str(true), fontsize=8)
    grid[0, 0].set_ylabel("image", fontsize=8)
    for line, row in zip(grid[1:], rows, strict=True):
        for axes, one, true, predicted in zip(line, row.maps, labels, row.predictions, strict=True):
            show_map(axes, one)
            axes.set_title("✓" if true == predicted else f"→ {predicted}", fontsize=8)
        line[0].set_ylabel(f"{_short(row.group)}\n{_short(row.run)}", fontsize=8)
    return figure


def _against(found: Comparison, x: Mapping[str, float | None], x_label: str, quantities: Iterable[str]) -> Cells | None:
    """A cell for each quantity over x, a mark for each run."""
    names = list(quantities)
    if not names:
        return None
    drawn = cells(1 + len(names), HEIGHT)
    _legend(drawn.axes[0], found.groups, "")
    for axes, quantity in zip(drawn.axes[1:], names, strict=True):
        for place, group in enumerate(found.groups):
            pairs = [(x[run.name], run.values.get(quantity)) for run in found.members(group)]
            there = [pair for pair in pairs if None not in pair]
            if there:
                axes.plot(*zip(*there, strict=True), **_mark(place), linestyle="", markersize=5, alpha=0.8)
        axes.set_xlabel(x_label, fontsize=7, labelpad=1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _title(axes, quantity, found)
    return drawn


def _legend(axes: Axes, groups: Sequence[str], line: str) -> None:
    for place, group in enumerate(groups):
        axes.plot([], [], linestyle=line, **_mark(place), label=_short(group, 30))
    axes.legend(loc="center", frameon=False, fontsize=8)
    axes.set_axis_off()


def _mark(place: int) -> dict[str, Any]:
    return {"marker": MARKERS[place % len(MARKERS)], "color": f"C{place % 10}"}


def _title(axes: Axes, quantity: str, found: Comparison) -> None:
    metric, _, attribution = label(quantity, found.directions).partition(" ")
    arrow, _, attribution = attribution.partition(" ")
    axes.set_title("\n".join(filter(None, [f"{metric} {arrow}".strip(), attribution])), fontsize=8)


def _short(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
