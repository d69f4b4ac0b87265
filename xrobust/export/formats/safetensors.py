"""A bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xrobust.export.bundle import write_bundle
from xrobust.export.finished import FinishedModel
from xrobust.export.formats.base import Format, Function
from xrobust.export.loading import load


@dataclass(frozen=True, kw_only=True)
class Safetensors(Format):
    """The bundle itself: model.safetensors, config.json and the model card; `xrobust.load` reads it."""

    filename = "bundle"
    packages = ("safetensors",)

    def write(self, finished: FinishedModel, path: Path) -> None:
        write_bundle(path, finished.model, finished.description)

    def read(self, path: Path) -> Function:
        return load(path)
