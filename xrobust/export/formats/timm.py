"""A folder for timm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xrobust.errors import UserError
from xrobust.export.finished import FinishedModel
from xrobust.export.formats.base import Format, Function
from xrobust.models.timm_model import TimmModel


@dataclass(frozen=True, kw_only=True)
class Timm(Format):
    """The bare network for `timm.create_model("local-dir:<folder>", pretrained=True)`, of `model=timm` only.

    timm's networks take normalised images: the mean and std that this one needs are in its `pretrained_cfg`, and the
    function that `read` gives applies them first.
    """

    filename = "timm"
    packages = ("timm", "safetensors")

    def write(self, finished: FinishedModel, path: Path) -> None:
        architecture = finished.description["architecture"]
        if not isinstance(finished.model, TimmModel):
            raise UserError(f"only a network of timm (model=timm) can be had, got {architecture['_target_']}")
        from timm.models import save_for_hf

        channels = finished.shape[0]
        images = {
            "input_size": finished.shape,
            "mean": tuple(architecture.get("mean") or [0.0] * channels),
            "std": tuple(architecture.get("std") or [1.0] * channels),
            "crop_pct": 1.0,
        }
        about = {
            "label_names": list(finished.description["class_names"]),
            "pretrained_cfg": {"tag": "xrobust", "license": None},  # timm's own are of the weights that it trained
        }
        save_for_hf(finished.model.network, str(path), about, safe_serialization=True, data_config=images)

    def read(self, path: Path) -> Function:
        import timm

        network: Any = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        mean, std = (torch.tensor(network.pretrained_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))

        def logits(x: Tensor) -> Tensor:
            return network((x - mean) / std)

        return logits
