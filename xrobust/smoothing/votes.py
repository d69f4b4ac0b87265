"""How often a classifier names each class under noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from xrobust.errors import UserError
from xrobust.frame import fast_kernels, logits_of
from xrobust.randomness import mix
from xrobust.smoothing.noise import Noise

BLOCK = 64  # copies drawn at once from an image's stream: fixed, so that no result depends on the batch size


def streams_of(seed: int, index: Sequence[int], device: torch.device) -> list[torch.Generator]:
    """A random stream for each image, keyed by (seed, position in the data set), on the device that computes.

    Noise is drawn where it is used, since moving it would take longer than classifying it; so a GPU sees other draws
    than a CPU.
    """
    return [torch.Generator(device).manual_seed(mix(seed, int(i))) for i in index]


def require_independent(model: nn.Module) -> None:
    """Refuse a network whose votes depend on which copies come together.

    Raises:
        UserError: naming a batch norm without running statistics.
    """
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise UserError(f"{name or 'the model'} normalises by the batch, so that noisy copies are not independent")


def count_votes(
    model: nn.Module, x: Tensor, copies: int, noise: Noise, streams: Sequence[torch.Generator], batch_size: int
) -> Tensor:
    """Votes of `copies` noisy copies of each image for each class: (N, C, H, W) → (N, K) int64.

    Copies of several images share a forward pass of at most `batch_size`, which bounds the memory. The model must be
    in evaluation mode; no gradients are kept.

    Raises:
        RuntimeError: if a logit is not finite: such an output is no vote.
    """
    votes: Tensor | None = None
    unusable = torch.zeros((), dtype=torch.bool, device=x.device)
    dtype = torch.promote_types(x.dtype, torch.float32)
    points = torch.empty(max(batch_size, BLOCK), *x.shape[1:], dtype=dtype, device=x.device)
    owners: list[Tensor] = []
    filled = 0

    def cast() -> None:
        nonlocal votes, unusable, filled
        for part, owner in zip(points[:filled].split(batch_size), torch.cat(owners).split(batch_size), strict=True):
            logits = logits_of(model, part)
            if votes is None:
                votes = torch.zeros(len(x) * logits.shape[1], dtype=torch.int64, device=x.device)
            unusable |= ~logits.isfinite().all()
            votes.index_add_(0, owner * logits.shape[1] + logits.argmax(1), torch.ones_like(owner))
        owners.clear()
        filled = 0

    with torch.no_grad(), fast_kernels(model, x.device):
        for i, (image, stream) in enumerate(zip(x, streams, strict=True)):
            for start in range(0, copies, BLOCK):
                if filled + BLOCK > len(points):
                    cast()
                used = min(BLOCK, copies - start)
                noise.fill(points[filled : filled + BLOCK], stream).add_(image)
                owners.append(torch.full((used,), i, device=x.device))
                filled += used  # what is left of the block is overwritten
        cast()
    if unusable:
        raise RuntimeError("the model's logits under noise are not finite")
    assert votes is not None
    return votes.view(len(x), -1)
