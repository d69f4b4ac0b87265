"""Which linear forms of the logits, or of a layer's values, are bounded."""

from __future__ import annotations

import torch
from torch import Tensor


def margins(y: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The differences z_y − z_j for all j ≠ y, j upwards: (N,) → (N, K − 1, K)."""
    own = torch.nn.functional.one_hot(y, classes).to(dtype)
    others = other_classes(y, classes)
    return own.unsqueeze(1) - torch.nn.functional.one_hot(others, classes).to(dtype)


def other_classes(y: Tensor, classes: int) -> Tensor:
    """The classes j ≠ y, upwards: (N,) → (N, K − 1)."""
    count = torch.arange(classes - 1, device=y.device).expand(len(y), -1)
    return count + (count >= y.unsqueeze(1))


def units(index: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The values of single units of a layer: positions (N, S) in the flattened layer → (N, S, *shape)."""
    forms = torch.zeros((*index.shape, shape.numel()), dtype=dtype, device=index.device)
    return forms.scatter_(2, index.unsqueeze(2), 1.0).unflatten(2, shape)


def marked(mask: Tensor) -> Tensor:
    """The positions that are marked in each sample, as a rectangle: (N, M) bool → (N, S), S the largest count.

    Rows with fewer are filled up with unmarked positions.
    """
    count = int(mask.sum(1).max()) if mask.numel() else 0
    return mask.to(torch.uint8).topk(count, dim=1).indices
