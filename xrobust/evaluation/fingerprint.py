"""What an evaluation is of: equal fingerprints give equal outcomes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def fingerprint(model: nn.Module, x: Tensor, y: Tensor, index: Tensor, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol in plain containers, and SHA-256 of the model and of the data."""
    return {
        **protocol,
        "model": _sha256([("structure", _structure(model)), *model.state_dict().items()]),
        "data": _sha256([("images", x), ("labels", y), ("index", index)]),
    }


def differences(before: Any, now: Any, place: str = "") -> Iterator[str]:
    """The dotted paths at which two plain containers differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f"{place}.{key}".lstrip("."))
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, f"{place}[{i}]")
    elif before != now:
        yield place


def _structure(model: nn.Module) -> str:
    """The modules as text, without the memory addresses that some of them show."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(model))


def _sha256(items: Sequence[tuple[str, str | Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, item in items:
        if isinstance(item, Tensor):
            name, item = f"{name} {item.dtype} {tuple(item.shape)}", item.detach().cpu().contiguous().flatten()
            content = item.view(torch.uint8).numpy().tobytes()
        else:
            content = str(item).encode()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
