"""The numbers behind a picture of maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from xrobust.attributions import Attribution
from xrobust.metrics import Probe


def first_images(probe: Probe, count: int) -> Probe:
    """The probe of its first images."""
    rows = slice(count)
    mask = None if probe.mask is None else probe.mask[rows]
    return replace(probe, x=probe.x[rows], y=probe.y[rows], index=probe.index[rows], mask=mask, shared={})


def panel_data(probe: Probe, attributions: Mapping[str, Attribution]) -> dict[str, NDArray]:
    """What `xrobust.report.panel.draw_panel` draws: images, clean and attacked, with the maps of each attribution.

    With a `map_attack`, the images that change the maps of an attribution, and those maps, too.
    """
    data = {
        "images": probe.x,
        "adversarial": probe.adversarial,
        "labels": probe.y,
        "predictions": probe.prediction,
        "adversarial_predictions": probe.logits_at(probe.adversarial).argmax(1),
    }
    for name, method in attributions.items():
        own = probe.using(method)
        data[f"map/{name}"] = own.map
        data[f"adversarial_map/{name}"] = own.adversarial_map
        if probe.map_attack is not None and method.differentiable:
            data[f"attacked/{name}"] = own.attacked
            data[f"attacked_predictions/{name}"] = own.logits_at(own.attacked).argmax(1)
            data[f"attacked_map/{name}"] = own.attacked_map
    return {name: _numpy(value) for name, value in data.items()}


def _numpy(value: torch.Tensor) -> NDArray:
    array = value.detach().cpu().numpy()
    return array.astype(np.float32) if array.dtype == np.float64 else array
