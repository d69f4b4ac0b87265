"""What an evaluation is of: equal fingerprints give equal outcomes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from xrobust.digest import sha256

PLAIN = (bool, int, float, str, tuple)


def fingerprint(model: nn.Module, x: Tensor, y: Tensor, index: Tensor, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol in plain containers, and SHA-256 of the model and of the data."""
    return {
        **protocol,
        "model": sha256([("structure", _structure(model)), *model.state_dict().items()]),
        "data": sha256([("images", x), ("labels", y), ("index", index)]),
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
    """The modules and their plain attributes as text, without the memory addresses that some of them show."""
    attributes = [
        (path, name, value)
        for path, module in model.named_modules()
        for name, value in sorted(vars(module).items())
        if name != "training" and isinstance(value, PLAIN)
    ]
    return re.sub(r" at 0x[0-9a-f]+", "", f"{model!r} {attributes!r}")
