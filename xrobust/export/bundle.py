"""Bundles: a model as a folder of weights, description and card.

model.safetensors   the weights
config.json         architecture, classes, threat model, results with their protocol, versions, hash
README.md           the model card
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from xrobust.export.card import model_card
from xrobust.export.description import describe
from xrobust.export.loading import architecture_class, file_sha256, read_config
from xrobust.export.result import AccuracyResult
from xrobust.files import replace_file


def save_bundle(
    folder: str | Path,
    model: nn.Module,
    architecture: dict[str, Any],
    *,
    class_names: Sequence[str],
    training: dict[str, Any],
    data: Mapping[str, Any] | None = None,
    results: Sequence[AccuracyResult] = (),
    explanation_card: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle. It is written beside and renamed, so that no half-written bundle ever has this name.

    Args:
        folder: where to; an existing bundle there is replaced.
        model: the trained network.
        architecture: {"_target_": "xrobust.models.…", argument: value, …}, from which `load` rebuilds it.
        class_names: one name for each logit.
        training: the resolved configuration of the run.
        data: the name, sizes and version ("sha256") of the data set.
        results: accuracies with their protocols.
        explanation_card: as `xrobust.explanation` fills it in.

    Raises:
        UserError: if the architecture is not one of `xrobust.models`.
    """
    description = describe(
        architecture,
        class_names=class_names,
        training=training,
        data=data,
        results=results,
        explanation_card=explanation_card,
    )
    return write_bundle(folder, model, description)


def write_bundle(folder: str | Path, model: nn.Module, description: Mapping[str, Any]) -> Path:
    """Write a bundle with a description that `describe` or `read_config` gave, beside and renamed.

    Raises:
        UserError: if the architecture is not one of `xrobust.models`.
    """
    folder = Path(folder)
    architecture_class(description["architecture"], folder)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        # `save_file` would make a file that only its owner can read.
        (beside / "model.safetensors").write_bytes(save(state, metadata={"format": "pt"}))
        config = {**description, "sha256": file_sha256(beside / "model.safetensors")}
        (beside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (beside / "README.md").write_text(model_card(config), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def add_results(
    folder: str | Path, results: Sequence[AccuracyResult], warnings: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Add accuracies to a bundle's description and card; each file is written beside and renamed.

    A result of equal quantity, protocol and number of samples is replaced.

    Args:
        folder: of the bundle.
        results: with their protocols.
        warnings: of the checks for gradient masking, which stay with the accuracies under attack: `check`,
            `measured`, `threshold`, `advice`, `reference`.

    Raises:
        UserError: if the folder is no readable bundle.
    """
    folder = Path(folder)
    config = read_config(folder)
    rows = [result.as_dict() for result in results]
    known = [_identity(row) for row in rows]
    kept = [row for row in config.get("results", []) if _identity(row) not in known]
    under_attack = [{**row, "warnings": list(warnings)} if "attack" in row["protocol"] else row for row in rows]
    config["results"] = kept + under_attack
    replace_file(folder / "config.json", json.dumps(config, indent=2) + "\n")
    replace_file(folder / "README.md", model_card(config))


def add_explanation_card(folder: str | Path, card: Mapping[str, Any]) -> None:
    """Put an explanation card into a bundle's description and model card, in place of an earlier one.

    Raises:
        UserError: if the folder is no readable bundle.
    """
    config = {**read_config(folder), "explanation_card": card}
    replace_file(Path(folder) / "config.json", json.dumps(config, indent=2) + "\n")
    replace_file(Path(folder) / "README.md", model_card(config))


def _identity(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["quantity"], json.dumps(row["protocol"], sort_keys=True), row["n"]
