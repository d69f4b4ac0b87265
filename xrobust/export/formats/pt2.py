"""A program of torch.export."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from xrobust.export.finished import FinishedModel
from xrobust.export.formats.base import Format, Function

FACTS = "xrobust.json"


@dataclass(frozen=True, kw_only=True)
class Pt2(Format):
    """A program that needs torch and no code of the model; any number of images, differentiable.

    `xrobust.json` among its extra files says which images it takes.
    """

    filename = "model.pt2"
    packages = ("torch",)

    def write(self, finished: FinishedModel, path: Path) -> None:
        batch = torch.export.Dim("batch")
        program = torch.export.export(finished.model, (finished.blank,), dynamic_shapes=({0: batch},))
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)  # holds the paths of this machine
        torch.export.save(program, path, extra_files={FACTS: json.dumps(finished.facts)})

    def read(self, path: Path) -> Function:
        return torch.export.load(path).module()
