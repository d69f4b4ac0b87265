"""ONNX."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.errors import at_least
from xrobust.export.finished import FinishedModel
from xrobust.export.formats.base import Format, Function

IMAGES, LOGITS = "images", "logits"


@dataclass(frozen=True, kw_only=True)
class Onnx(Format):
    """`images` (batch, C, H, W) in [0, 1] → `logits` (batch, K), for any batch; without gradients.

    The metadata says which images it takes. Read back with onnxruntime on the CPU.

    Args:
        opset: version of the operators, at least 18.
    """

    filename = "model.onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    differentiable = False

    opset: int = 20

    def __post_init__(self) -> None:
        at_least("formats.onnx", 18, opset=self.opset)  # the dynamo exporter writes no older ones

    def write(self, finished: FinishedModel, path: Path) -> None:
        from onnx import checker

        program = torch.onnx.export(
            _with_constant_weights(finished.model),
            (finished.blank,),
            dynamo=True,
            opset_version=self.opset,
            input_names=[IMAGES],
            output_names=[LOGITS],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None  # it is None for the exporter before dynamo
        program.model.metadata_props.update(
            {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in finished.facts.items()}
        )
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # holds the paths of this machine
        program.save(path, external_data=False)
        checker.check_model(path, full_check=True)

    def read(self, path: Path) -> Function:
        from onnxruntime import InferenceSession

        session = InferenceSession(path, providers=["CPUExecutionProvider"])

        def logits(x: Tensor) -> Tensor:
            return torch.from_numpy(session.run([LOGITS], {IMAGES: x.numpy(force=True)})[0])

        return logits


def _with_constant_weights(model: nn.Module) -> nn.Module:
    """A copy whose layers no longer compute their weights from parameters: ONNX has no inverse of a matrix."""
    copy: nn.Module = deepcopy(model)
    layers: list[Any] = [module for module in copy.modules() if hasattr(module, "effective_weight")]
    for layer in layers:
        weight = layer.effective_weight().detach()
        layer.effective_weight = lambda weight=weight: weight
    return copy
