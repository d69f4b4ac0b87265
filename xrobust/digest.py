"""A digest of tensors and texts: equal contents, equal digest, on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor


def sha256(items: Iterable[tuple[str, str | Tensor]]) -> str:
    """SHA-256 of named tensors (with type and shape) and texts, in their order."""
    digest = hashlib.sha256()
    for name, item in items:
        if isinstance(item, Tensor):
            name, item = f"{name} {item.dtype} {tuple(item.shape)}", item.detach().cpu().contiguous().flatten()
            content = item.view(torch.uint8).numpy().tobytes()
        else:
            content = str(item).encode()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
