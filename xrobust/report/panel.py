"""Attribution panels: the same images, clean and attacked, with their maps."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Array = NDArray[np.float32]


def show_image(axes: Axes, image: Array) -> None:
    """An image (C, H, W) in [0, 1]; one channel is drawn in grey."""
    _bare(axes)
    if image.shape[0] == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(image.transpose(1, 2, 0).clip(0, 1))


def show_map(axes: Axes, attribution: Array) -> None:
    """A signed map (C, H, W), summed over channels: red speaks for the class, blue against it, white is zero.

    The scale is symmetric and ends at the 99.5th percentile of the map's own magnitudes, so maps are to be compared
    in shape, not in size.
    """
    _bare(axes)
    summed = attribution.sum(0)
    limit = float(np.percentile(np.abs(summed), 99.5)) or 1.0
    axes.imshow(summed, cmap="RdBu_r", vmin=-limit, vmax=limit)


def draw_panel(data: Mapping[str, NDArray], title: str) -> Figure:
    """One column an image; rows: the image, its maps, its adversarial example, the maps there.

    `data` holds `images`, `adversarial` (N, C, H, W), `labels`, `predictions`, `adversarial_predictions` (N,), and
    for each attribution method `map/<name>` and `adversarial_map/<name>`; and where there was an attack on the map,
    `attacked/<name>`, the images that it made, `attacked_predictions/<name>` (N,) and `attacked_map/<name>`.
    """
    methods = [name.removeprefix("map/") for name in data if name.startswith("map/")]
    rows = [
        "images",
        *[f"map/{m}" for m in methods],
        "adversarial",
        *[f"adversarial_map/{m}" for m in methods],
        *[f"{kind}/{m}" for m in methods for kind in ("attacked", "attacked_map") if f"attacked/{m}" in data],
    ]
    columns = len(data["images"])
    figure = Figure(figsize=(1.0 * columns + 1.2, 1.12 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for row, name in zip(grid, rows, strict=True):
        for axes, picture in zip(row, data[name], strict=True):
            (show_map if "map/" in name else show_image)(axes, picture)
        row[0].set_ylabel(_row_label(name), fontsize=8)
        if name.startswith("attacked/"):
            for axes, label, prediction in zip(
                row, data["labels"], data[f"attacked_predictions/{name[9:]}"], strict=True
            ):
                axes.set_title(_verdict(label, prediction), fontsize=8)
    for i in range(columns):
        grid[0, i].set_title(_verdict(data["labels"][i], data["predictions"][i]), fontsize=8)
        grid[1 + len(methods), i].set_title(_verdict(data["labels"][i], data["adversarial_predictions"][i]), fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def save_panel(data: Mapping[str, NDArray], folder: Path, epoch: int) -> Path:
    """Write `epoch_NNN.npz` (the numbers) and `epoch_NNN.png` (the picture); returns the picture's path."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"epoch_{epoch:03d}"
    np.savez_compressed(stem.with_suffix(".npz"), **data)  # type: ignore[arg-type]
    draw_panel(data, f"epoch {epoch}").savefig(stem.with_suffix(".png"), dpi=110)
    return stem.with_suffix(".png")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()


def load_panels(folder: Path) -> dict[int, dict[str, NDArray]]:
    """The saved panels by epoch, in order."""
    panels = {}
    for file in sorted(folder.glob("epoch_*.npz")):
        with np.load(file) as data:
            panels[int(file.stem.removeprefix("epoch_"))] = dict(data)
    return panels


def _row_label(name: str) -> str:
    kind, _, method = name.partition("/")
    method = method.replace("_", "\n")  # a row is as high as a few words are long
    words = {"map": method, "adversarial_map": f"{method}\nadversarial", "attacked": f"against\n{method}"}
    return words.get(kind, f"{method}\nattacked" if method else name)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _verdict(label: int, prediction: int) -> str:
    return f"{label} ✓" if label == prediction else f"{label} → {prediction}"
