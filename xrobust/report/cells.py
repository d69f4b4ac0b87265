"""Figures of many small panels: one picture for a file, and each panel by itself for a page that wraps."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray

DPI = 160
WIDTH = 2.8  # inches of a cell; times the dots an inch, a whole number
MARKERS = "os^Dv*XP<"  # told apart without colour, too; not as many as there are colours, so that pairs last longer


@dataclass(frozen=True)
class Cells:
    """A figure of equal cells, row by row.

    Args:
        figure: the whole.
        axes: of each cell.
        columns: cells in a row.
        height: of a cell, in inches.
    """

    figure: Figure
    axes: Sequence[Axes]
    columns: int
    height: float


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Args:
        png: the whole, as a PNG file.
        svg: the whole, as an SVG file.
        tiles: title and PNG file of each cell, for figures that have cells.
    """

    png: bytes
    svg: bytes
    tiles: Sequence[tuple[str, bytes]] = ()


def picture(drawn: Cells | Figure) -> Picture:
    """The files of a figure; the PNG files are cut from one drawing."""
    figure = drawn.figure if isinstance(drawn, Cells) else drawn
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    tiles = list(_tiles(pixels, drawn)) if isinstance(drawn, Cells) else []
    return Picture(_png(pixels), stream.getvalue(), tiles)


def _tiles(pixels: NDArray, drawn: Cells) -> Iterator[tuple[str, bytes]]:
    high, wide = round(drawn.height * DPI), round(WIDTH * DPI)
    for i, axes in enumerate(drawn.axes):
        row, column = divmod(i, drawn.columns)
        tile = pixels[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
        yield axes.get_title().replace("\n", " "), _png(tile)


def _png(pixels: NDArray) -> bytes:
    stream = io.BytesIO()
    imsave(stream, np.ascontiguousarray(pixels), format="png")
    return stream.getvalue()


def cells(count: int, height: float, left: float = 0.55, bottom: float = 0.45, columns: int = 4) -> Cells:
    """Empty cells; `left` and `bottom` inches of each are for the labels of the axes."""
    height, columns = math.ceil(round(height * 10, 6)) / 10, min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(columns * WIDTH, rows * height))
    axes = []
    for i in range(count):
        row, column = divmod(i, columns)
        box = (
            (column * WIDTH + left) / (columns * WIDTH),
            ((rows - 1 - row) * height + bottom) / (rows * height),
            (WIDTH - left - 0.2) / (columns * WIDTH),
            (height - bottom - 0.45) / (rows * height),
        )
        axes.append(figure.add_axes(box))
        axes[-1].tick_params(labelsize=7)
        axes[-1].grid(alpha=0.3)
        for axis in (axes[-1].xaxis, axes[-1].yaxis):
            axis.get_offset_text().set_fontsize(7)
    return Cells(figure, axes, columns, height)
