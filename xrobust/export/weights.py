"""Weights that were not saved by xrobust."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from xrobust.errors import UserError
from xrobust.export.unreadable import UNREADABLE, reason
from xrobust.models.wrapped import WrappedModel

DATA_PARALLEL = "module."


def load_weights(model: nn.Module, file: str | Path) -> None:
    """Load a state_dict into a model; nothing in the file is executed.

    The keys may be those of the model, or, for a network of timm or torchvision, those of the bare network; they may
    lie under "state_dict" and begin with "module.".

    Args:
        model: changed in place.
        file: .safetensors, or what `torch.save(model.state_dict(), file)` wrote.

    Raises:
        UserError: if the file is missing, unreadable, or its tensors do not fit the model.
    """
    state = _read(Path(file))
    bare = isinstance(model, WrappedModel) and not any(key.startswith("network.") for key in state)
    target = model.get_submodule("network") if bare else model
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise UserError(f"weights={file} do not fit {type(target).__name__}: {reason}") from error


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"weights={file} {'is a folder, it must be a file' if file.is_dir() else 'does not exist'}")
    try:
        tensors = file.suffix == ".safetensors"
        state = load_file(file) if tensors else torch.load(file, map_location="cpu", weights_only=True)
    except (*UNREADABLE, SafetensorError) as error:
        raise UserError(f"weights={file} is not a readable state_dict{reason(error)}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights={file} must hold tensors by name, as torch.save(model.state_dict(), …) writes them")
    return {key.removeprefix(DATA_PARALLEL): value for key, value in state.items()}
