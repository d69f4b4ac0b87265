"""Proven upper bounds of the spectral norms of linear layers and convolutions."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict

import torch
from torch import Size, Tensor

from xrobust.certification.bounds import GUARD
from xrobust.certification.lipschitz.eigenvalue import eigenvalue_bound
from xrobust.certification.rules.convolution import Conv2d
from xrobust.certification.rules.linear import Linear

CHUNK = 2**24  # numbers in a tensor
KEPT = 512
_KNOWN: OrderedDict[bytes, float] = OrderedDict()  # bounds by the digest of the layer: batches share its weights


def norm_bound(operation: Linear | Conv2d, shape: Size, dense_limit: int) -> float:
    """c ≥ ‖A‖₂ for the operator A that a layer is on inputs of the given shape; its bias does not matter.

    The square root of a proven bound of the largest eigenvalue of AAᵀ or AᵀA, whichever is smaller. Linear layers:
    of the weights. Convolutions: of the materialised operator with its input's size, stride and zero padding, tight
    to 10⁻⁶; if both of its sides exceed `dense_limit`, of the convolution on a torus that it is a part of
    (`frequencies`), usually some percent larger. What rounding may have changed is added.

    Args:
        operation: in float64.
        shape: of the input, without the batch.
        dense_limit: the largest matrix that is factorised; time grows with its cube.
    """
    key = _digest(operation, shape, dense_limit)
    if key not in _KNOWN:
        _KNOWN[key] = _norm_bound(operation, shape, dense_limit)
        if len(_KNOWN) > KEPT:
            _KNOWN.popitem(last=False)
    _KNOWN.move_to_end(key)
    return _KNOWN[key]


@torch.no_grad()
def _norm_bound(operation: Linear | Conv2d, shape: Size, dense_limit: int) -> float:
    if isinstance(operation, Linear):
        return _root(_dense(_smaller_gram(operation.weight.unsqueeze(0)), operation.terms))
    sides = shape.numel(), operation.linear(operation.weight.new_zeros(1, *shape)).numel()
    if min(sides) <= dense_limit:
        return _root(_dense(materialised_gram(operation, shape, *sides).unsqueeze(0), 2 * operation.terms))
    return _root(_torus(operation, shape))


def _dense(gram: Tensor, terms: int) -> float:
    # |fl(AAᵀ) − AAᵀ| ≤ n·u·|A||A|ᵀ, of norm at most n·u·‖A‖²_F = n·u·tr(AAᵀ).
    trace = float(gram.diagonal(dim1=-2, dim2=-1).sum(-1).amax())
    return eigenvalue_bound(gram, torch.finfo(gram.dtype).eps * (terms + GUARD) * trace)


def _root(bound: float) -> float:
    return math.sqrt(bound) * (1 + 4e-16) if not math.isnan(bound) else bound


def materialised_gram(operation: Conv2d, shape: Size, inputs: int, outputs: int) -> Tensor:
    """AAᵀ or AᵀA, whichever is smaller: (d, d)."""
    by_rows = outputs <= inputs
    start = operation.linear(operation.weight.new_zeros(1, *shape)).shape[1:] if by_rows else shape
    units = torch.eye(min(inputs, outputs), dtype=torch.float64, device=operation.weight.device)
    parts = []
    for part in units.split(max(1, CHUNK // max(inputs, outputs))):
        part = part.view(-1, *start)
        if by_rows:
            part = operation.linear(*operation.transpose(part))
        else:
            (part,) = operation.transpose(operation.linear(part))
        parts.append(part.flatten(1))
    return torch.cat(parts)


def _smaller_gram(matrices: Tensor) -> Tensor:
    """MMᴴ or MᴴM, whichever is smaller: (B, m, n) → (B, d, d)."""
    return matrices @ matrices.mH if matrices.shape[1] <= matrices.shape[2] else matrices.mH @ matrices


def _torus(operation: Conv2d, shape: Size) -> float:
    """The bound over all frequencies, part by part."""
    kernel = polyphase(operation)
    groups, outputs, inputs, *taps = kernel.shape
    size = float(kernel.abs().sum((3, 4)).square().sum((1, 2)).amax())  # of |M|, which no |M(frequency)| exceeds
    blocks = [
        math.ceil((side + 2 * padding) / stride)
        for side, padding, stride in zip(shape[1:], operation.padding, operation.stride, strict=True)
    ]
    terms = 4 * math.prod(taps) + 2 * min(inputs, outputs) + 2 * max(inputs, outputs) + GUARD
    error = torch.finfo(torch.float64).eps * terms * size
    # Real kernels have conjugate matrices at opposite frequencies.
    pairs = torch.cartesian_prod(torch.arange(blocks[0] // 2 + 1), torch.arange(blocks[1])).to(kernel.device)
    bounds = []
    for part in pairs.split(max(1, CHUNK // (groups * outputs * inputs))):
        matrices = frequencies(kernel, part, blocks)
        bounds.append(eigenvalue_bound(_smaller_gram(matrices.flatten(0, 1)), error))
    return float(torch.tensor(bounds, dtype=torch.float64).amax())


def polyphase(operation: Conv2d) -> Tensor:
    """The kernel of the convolution of stride 1 that a strided one is on blocks of s × s pixels taken as channels.

    The tap at position p of a row of pixels is the tap p // s of the row of blocks, at the place p % s in its block.

    Returns:
        (groups, out channels, in channels · s · s, taps, taps), of each group.
    """
    weight = operation.weight
    outputs, inputs, *kernel = weight.shape
    strides, device = operation.stride, weight.device
    rows, columns = (
        torch.arange(side, device=device) * dilation for side, dilation in zip(kernel, operation.dilation, strict=True)
    )
    taps = [int(place[-1]) // stride + 1 for place, stride in zip((rows, columns), strides, strict=True)]
    blocks = weight.new_zeros(outputs, inputs, *strides, *taps)
    down, across = rows[:, None], columns[None, :]
    blocks[:, :, down % strides[0], across % strides[1], down // strides[0], across // strides[1]] = weight
    return blocks.flatten(1, 3).unflatten(0, (operation.groups, -1))


def frequencies(kernel: Tensor, pairs: Tensor, blocks: list[int]) -> Tensor:
    """The matrices that a convolution on a torus of blocks is, in Fourier space: → (F, groups, out, in) complex128.

    The padded image of ⌈(n + 2p)/s⌉ blocks fills the torus, and no window that counts reaches around it. So the
    layer is this convolution between an embedding and a selection of pixels, which have norm 1:
    ‖A‖₂ ≤ max over frequencies of ‖M(frequency)‖₂ (Sedghi et al. 2019 for the torus).
    """
    phases = []
    for dim, size in enumerate(blocks):
        turns = pairs[:, dim, None] * torch.arange(kernel.shape[3 + dim], device=kernel.device) % size
        angle = turns.double() * (2 * math.pi / size)
        phases.append(torch.polar(torch.ones_like(angle), angle))
    return torch.einsum("goiab,fa,fb->fgoi", kernel.to(phases[0].dtype), *phases)


def _digest(operation: Linear | Conv2d, shape: Size, dense_limit: int) -> bytes:
    settings = {name: value for name, value in vars(operation).items() if not isinstance(value, Tensor)}
    weight = operation.weight.detach().cpu().contiguous()
    described = (
        f"{type(operation).__name__} {settings} {tuple(weight.shape)} {weight.dtype} {tuple(shape)} {dense_limit}"
    )
    return hashlib.sha256(described.encode() + weight.numpy().tobytes()).digest()
