"""Maps of the same images by a model of each group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import NDArray

from xrobust.attributions import Gradient
from xrobust.comparison.run import Run
from xrobust.export.loading import load, read_config
from xrobust.report.panel import load_panels

SAME_IMAGES = ("_target_", "dataset", "image_size", "channels", "class_names", "num_classes")


@dataclass(frozen=True)
class Maps:
    """The maps of one model.

    Args:
        group: of which it stands for.
        run: whose model it is.
        maps: (k, C, H, W), signed.
        predictions: (k,).
    """

    group: str
    run: str
    maps: NDArray
    predictions: NDArray


def group_maps(groups: Mapping[str, Sequence[Run]], count: int) -> tuple[NDArray, NDArray, list[Maps]] | None:
    """The gradient of the label's logit, by the bundled model of each group's first run, on the same images.

    The images are the first of the panels that a run has saved; models of other data are left out.

    Returns:
        Images (k, C, H, W), labels (k,), and the maps; none if no run has saved panels.
    """
    runs = [run for members in groups.values() for run in members if run.bundle is not None]
    for source in runs:
        panels = load_panels(source.place / "panels")
        if panels:
            panel = panels[max(panels)]
            images, labels = panel["images"][:count], panel["labels"][:count]
            data = _data(source)
            alike = (
                (group, run)
                for group, members in groups.items()
                for run in [next((one for one in members if one.bundle and _data(one) == data), None)]
                if run is not None
            )
            return images, labels, [_maps(group, run, images, labels) for group, run in alike]
    return None


def _maps(group: str, run: Run, images: NDArray, labels: NDArray) -> Maps:
    assert run.bundle is not None
    model, x = load(run.bundle), torch.from_numpy(images)
    maps = Gradient()(model, x, torch.from_numpy(labels))
    with torch.no_grad():
        predictions = model(x).argmax(1)
    return Maps(group, run.name, maps.numpy(), predictions.numpy())


def _data(run: Run) -> tuple[object, ...]:
    """What tells whether two runs see the same kind of images."""
    assert run.bundle is not None
    data = run.config.get("data") or {}
    return str(read_config(run.bundle).get("class_names")), *(str(data.get(key)) for key in SAME_IMAGES)
