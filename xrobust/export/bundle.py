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
import pickle
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
        results: accuracies with their protocols.
        explanation_card: as `xrobust.explanation` fills it in.

    Raises:
        UserError: if the architecture is not one of `xrobust.models`.
    """
    folder = Path(folder)
    _architecture_class(architecture, folder)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, beside / "model.safetensors", metadata={"format": "pt"})
        config = {
            "format": FORMAT,
            "architecture": architecture,
            "class_names": list(class_names),
            "threat": training.get("threat"),
            "training": training,
            "results": [result.as_dict() for result in results],
            "explanation_card": explanation_card,
            "versions": {
                "xrobust": xrobust.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "sha256": _sha256(beside / "model.safetensors"),
        }
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
    path = Path(path)
    if path.is_dir():
        config = read_config(path)
        architecture, state = (
            config["architecture"],
            _read_weights(path / "model.safetensors", config["sha256"]),
        )
    elif path.is_file():
        architecture, state = _read_checkpoint(path)
    else:
        raise UserError(f"{path}: there is no such bundle or checkpoint")
    model = _architecture_class(architecture, path)(**{k: v for k, v in architecture.items() if k != "_target_"})
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path}: the weights do not fit {architecture['_target_']}: {error}") from error
    return model.to(device).eval()


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
    found = _sha256(file)
    if found != sha256:
        raise UserError(f"{file} is damaged or altered: its SHA-256 is {found[:12]}…, config.json says {sha256[:12]}…")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is damaged: {error}") from error


def _read_checkpoint(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        architecture = checkpoint["config"]["model"]
        weights = checkpoint["state_dict"]
    except (RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{file} is not a readable checkpoint of train.py: {reason}") from error
    return architecture, {key.removeprefix("model."): v for key, v in weights.items() if key.startswith("model.")}


def _architecture_class(architecture: dict[str, Any], place: Path) -> type[nn.Module]:
    target = str(architecture.get("_target_"))
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


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
