"""Bundles: a model as a folder of weights, description and card.

model.safetensors   the weights
config.json         architecture, classes, threat model, results with their protocol, versions, hash
README.md           the model card
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

import xrobust
from xrobust.errors import UserError
from xrobust.export.card import model_card
from xrobust.export.result import AccuracyResult
from xrobust.export.unreadable import UNREADABLE, reason
from xrobust.files import replace_file

FORMAT = 1
MODELS = "xrobust.models."


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


def describe(
    architecture: dict[str, Any],
    *,
    class_names: Sequence[str],
    training: dict[str, Any],
    data: Mapping[str, Any] | None = None,
    results: Sequence[AccuracyResult] = (),
    explanation_card: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The description of a model, which is a bundle's config.json but for the hash; see `save_bundle`."""
    return {
        "format": FORMAT,
        "architecture": architecture,
        "class_names": list(class_names),
        "threat": training.get("threat"),
        "training": training,
        "data": data,
        "results": [result.as_dict() for result in results],
        "explanation_card": explanation_card,
        "versions": {
            "xrobust": xrobust.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def write_bundle(folder: str | Path, model: nn.Module, description: Mapping[str, Any]) -> Path:
    """Write a bundle with a description that `describe` or `read_config` gave, beside and renamed.

    Raises:
        UserError: if the architecture is not one of `xrobust.models`.
    """
    folder = Path(folder)
    _architecture_class(description["architecture"], folder)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, beside / "model.safetensors", metadata={"format": "pt"})
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


def load(path: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The network of a bundle, or of a checkpoint that `train.py` wrote: images in [0, 1] → logits, in eval mode.

    Runs no code from the file: the architecture must be one of `xrobust.models`, and weights are read as tensors.

    Raises:
        UserError: if there is no such file, it is damaged or altered, or it names a foreign architecture.
    """
    return load_described(path)[0].to(device)


def load_described(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """`load` on the CPU, and the description: that of the bundle, or, of a checkpoint, its training without results.

    Raises:
        UserError: as `load` does.
    """
    path = Path(path)
    if path.is_dir():
        description = read_config(path)
        state = _read_weights(path / "model.safetensors", description["sha256"])
    elif path.is_file():
        architecture, training, state = _read_checkpoint(path)
        description = describe(architecture, class_names=(), training=training)
    else:
        raise UserError(f"{path}: there is no such bundle or checkpoint")
    model = _network(description["architecture"], path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        target = description["architecture"]["_target_"]
        raise UserError(f"{path}: the weights do not fit {target}: {error}") from error
    return model.eval(), description


def read_config(folder: str | Path) -> dict[str, Any]:
    """The description of a bundle.

    Raises:
        UserError: if it is missing, damaged, or of another format.
    """
    file = Path(folder) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is not a bundle: it has no config.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    wanted = {"format", "architecture", "sha256"}
    if not isinstance(config, dict) or not wanted <= config.keys():
        raise UserError(f"{file} is damaged: it must hold {', '.join(sorted(wanted))}")
    if config["format"] != FORMAT:
        raise UserError(f"{file} has format {config['format']}; this version reads format {FORMAT}")
    return config


def _read_weights(file: Path, sha256: str) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise UserError(f"{file} is missing")
    found = file_sha256(file)
    if found != sha256:
        raise UserError(f"{file} is damaged or altered: its SHA-256 is {found[:12]}…, config.json says {sha256[:12]}…")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is damaged: {error}") from error


def _read_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, torch.Tensor]]:
    """Architecture, configuration of the training, weights."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        training, weights = checkpoint["config"], checkpoint["state_dict"]
        architecture = training["model"]
    except UNREADABLE as error:
        raise UserError(f"{file} is not a readable checkpoint of train.py{reason(error)}") from error
    state = {key.removeprefix("model."): v for key, v in weights.items() if key.startswith("model.")}
    return architecture, training, state


def _network(architecture: Mapping[str, Any], place: Path) -> nn.Module:
    """The network with random weights; none are downloaded, because the file brings them."""
    kind = _architecture_class(architecture, place)
    arguments = {key: value for key, value in architecture.items() if key != "_target_"}
    if arguments.get("pretrained"):
        arguments["pretrained"] = False
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(f"{place}: {architecture['_target_']} cannot be built: {error}") from error


def _architecture_class(architecture: Mapping[str, Any], place: Path) -> type[nn.Module]:
    target = str(architecture.get("_target_") if isinstance(architecture, Mapping) else None)
    module, _, name = target.rpartition(".")
    found = None
    if target.startswith(MODELS):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError:
            found = None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"{place}: the architecture must be a network of {MODELS[:-1]}, got {target}")
    return found


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
