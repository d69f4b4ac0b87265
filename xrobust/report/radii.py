"""Certified accuracy over the radius, as a figure."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def draw_radii(radius: NDArray, correct: NDArray, title: str, x_label: str) -> Figure:
    """Certified accuracy over the radius: the share of images that are right with at least this radius.

    Args:
        radius: (N,), 0 for abstentions.
        correct: (N,) bool.
        title: of the figure.
        x_label: the radius and its norm.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    radii = np.sort(radius[correct])
    left = np.arange(len(radii), -1, -1) / len(radius)
    axes.step(np.concatenate([[0.0], radii]), left, where="post", label="certified accuracy")
    area = f"ACR {radii.sum() / len(radius):.3f}"
    axes.plot([], [], " ", label=area)
    axes.set(xlabel=x_label, ylabel="accuracy", xlim=(0, None), ylim=(0, 1.02), title=title)
    axes.title.set_fontsize(9)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure
