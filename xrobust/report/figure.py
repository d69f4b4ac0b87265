"""report.png: accuracies, explanation metrics and maps of one run on one page."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from xrobust.report.history import trajectory
from xrobust.report.panel import show_image, show_map
from xrobust.report.run import ARROWS, Run

ACCURACIES = {  # log key: label, line style, marker — told apart without colour, too
    "val/clean_accuracy": ("clean (validation)", "-", "o"),
    "val/robust_accuracy": ("robust (validation)", "-", "s"),
    "val/certified_accuracy": ("certified (validation)", "-", "^"),
    "train/clean_accuracy": ("clean (training)", ":", ""),
    "train/adversarial_accuracy": ("adversarial (training)", ":", ""),
}
METRIC_COLUMNS = 5


def draw_report(run: Run) -> Figure:
    """Accuracies over the epochs, each explanation metric over the epochs, and maps at first, middle, last epoch."""
    names = list(run.directions)
    metric_rows = math.ceil(len(names) / METRIC_COLUMNS)
    epochs = _first_middle_last(list(run.panels))
    heights = [3.0, 1.75 * metric_rows, 1.05 * (1 + 2 * len(epochs))]
    figure = Figure(figsize=(12, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(run.title, fontsize=13)
    parts = figure.subfigures(3, 1, squeeze=False, height_ratios=[max(height, 0.1) for height in heights])
    top, middle, bottom = parts[:, 0]
    _accuracies(top, run)
    if names:
        _metrics(middle, run, names, metric_rows)
    if epochs:
        _maps(bottom, run, epochs)
    return figure


def _accuracies(figure: SubFigure, run: Run) -> None:
    axes = figure.subplots()
    for name, (label, line, marker) in ACCURACIES.items():
        epochs, values = trajectory(run.history, name)
        if values:
            axes.plot(epochs, values, line, marker=marker, markersize=4, label=label)
    axes.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02))
    _whole_epochs(axes)
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)


def _metrics(figure: SubFigure, run: Run, names: list[str], rows: int) -> None:
    figure.suptitle("Explanations on the probe set (↑ higher is better, ↓ lower is better)", fontsize=10)
    grid = figure.subplots(rows, METRIC_COLUMNS, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        epochs, values = trajectory(run.history, name)
        axes.plot(epochs, values, "-o", markersize=2.5, color="black")
        _, metric, *method = name.removeprefix("explain/").split("/")
        axes.set_title(f"{metric} {ARROWS[run.directions[name]]}\n{' '.join(method)}".strip(), fontsize=8)
        axes.tick_params(labelsize=7)
        _whole_epochs(axes, 3)
        axes.grid(alpha=0.3)
    for axes in grid[len(names) :]:
        axes.set_visible(False)


def _whole_epochs(axes: Axes, count: int = 9) -> None:
    """Ticks at whole epochs, about so many; also where a run has one epoch only."""
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim((low + high) / 2 - 1, (low + high) / 2 + 1)
    axes.xaxis.set_major_locator(MaxNLocator(count, integer=True))


def _maps(figure: SubFigure, run: Run, epochs: list[int]) -> None:
    method = next(name for name in run.panels[epochs[0]] if name.startswith("map/"))
    columns = len(run.panels[epochs[0]]["images"])
    figure.suptitle(f"{method.removeprefix('map/')}: maps of the same validation images", fontsize=10)
    grid = figure.subplots(1 + 2 * len(epochs), columns, squeeze=False)
    for axes, image in zip(grid[0], run.panels[epochs[0]]["images"], strict=True):
        show_image(axes, image)
    for i, epoch in enumerate(epochs):
        for row, key, label in (
            (1 + 2 * i, method, "clean"),
            (2 + 2 * i, f"adversarial_{method}", "attacked"),
        ):
            for axes, attribution in zip(grid[row], run.panels[epoch][key], strict=True):
                show_map(axes, attribution)
            grid[row, 0].set_ylabel(f"epoch {epoch}\n{label}", fontsize=8)


def _first_middle_last(epochs: list[int]) -> list[int]:
    return sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1]}) if epochs else []
