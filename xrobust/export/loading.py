"""Reads a network back: from a bundle, or from a checkpoint that train.py wrote."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from xrobust.errors import UserError
from xrobust.export.description import FORMAT, describe
from xrobust.export.unreadable import UNREADABLE, reason
from xrobust.models.wrapped import WrappedModel

MODELS = "xrobust.models."


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
    kind = architecture_class(architecture, place)
    arguments = {key: value for key, value in architecture.items() if key != "_target_"}
    if issubclass(kind, WrappedModel):
        arguments = kind.without_download(arguments)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(f"{place}: {architecture['_target_']} cannot be built: {error}") from error


def architecture_class(architecture: Mapping[str, Any], place: Path) -> type[nn.Module]:
    """The class that {"_target_": "xrobust.models.…", …} names.

    Raises:
        UserError: naming the place, if it is no network of `xrobust.models`.
    """
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
