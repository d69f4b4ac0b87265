"""Convolutions, with any stride, zero padding, dilation and groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from xrobust.certification.box import Box
from xrobust.certification.operation import Affine, PulledWindows, Slope
from xrobust.certification.rules.registry import Call, rule
from xrobust.certification.windows import Windows

Pair = tuple[int, int]
FEW = 3  # channels of images: for so few, a product and a sum of windows is up to four times as fast on CPUs


@dataclass(frozen=True, eq=False)
class Conv2d(Affine):
    """z ↦ W ∗ z + b."""

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    input_shape: Size

    def _convolved(self, z: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(z, self.weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def linear(self, *inputs: Tensor) -> Tensor:
        return self._convolved(inputs[0], None)

    def apply(self, *inputs: Tensor) -> Tensor:
        return self._convolved(inputs[0], self.bias)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self._transposed(a, self.input_shape[1:], self.padding),)

    def _transposed(self, a: Tensor, size: Size, padding: Pair) -> Tensor:
        """The adjoint for inputs of another size and padding: (M, C′, h′, w′) → (M, C, *size)."""
        kernel = self.weight.shape[2:]
        if a.device.type == "cpu" and self.groups == 1 and self.weight.shape[1] <= FEW:
            columns = self.weight.flatten(1).t() @ a.flatten(2)
            return F.fold(columns, size, kernel, self.dilation, padding, self.stride)
        # What the last strides do not reach must be added to get the input's size back.
        reached = self._reach(a.shape[2:])
        missed = [whole - got + 2 * p for whole, got, p in zip(size, reached, padding, strict=True)]
        return F.conv_transpose2d(a, self.weight, None, self.stride, padding, missed, self.groups, self.dilation)

    def _reach(self, size: Size) -> Size:
        """The height and width, padding included, that so many neighbouring outputs are computed from."""
        kernel = self.weight.shape[2:]
        sides = zip(size, self.stride, self.dilation, kernel, strict=True)
        return Size((side - 1) * stride + dilation * (k - 1) + 1 for side, stride, dilation, k in sides)

    def _windows(self, a: Tensor, size: Size) -> Tensor:
        """`_transposed` for windows: (M, h, w, C′) → (M, *size, C)."""
        window = a.shape[1:]
        small = window[:2].numel() == 1 or self.weight.shape[1] <= FEW
        if small and len(a) > window.numel():  # one matrix for all; its zeros add no rounding
            units = torch.eye(window.numel(), dtype=a.dtype, device=a.device).unflatten(1, window)
            matrix = self._transposed(units.movedim(-1, 1), size, (0, 0)).movedim(1, -1)
            return (a.flatten(1) @ matrix.flatten(1)).unflatten(1, matrix.shape[1:])
        return self._transposed(a.movedim(-1, 1), size, (0, 0)).movedim(1, -1).contiguous()

    def pull_windows(self, a: Windows, boxes: tuple[Box, ...], slope: Slope) -> PulledWindows | None:
        size = self._reach(a.coefficients.shape[2:4])
        if 2 * size.numel() > self.input_shape[1:].numel():
            return None
        pulled = self._windows(a.coefficients.flatten(0, 1), size).unflatten(0, a.top.shape)
        constants = () if self.offset is None else ((a.coefficients, a.of(self.offset)),)
        return PulledWindows((a.moved(pulled, self.stride, self.padding, self.input_shape),), constants)

    @property
    def unsigned(self) -> Conv2d:
        return replace(self, weight=self.weight.abs(), bias=None)

    @property
    def offset(self) -> Tensor | None:
        return None if self.bias is None else self.bias.view(-1, 1, 1)

    @property
    def terms(self) -> int:
        out_channels, in_channels, *kernel = self.weight.shape
        return max(in_channels, out_channels // self.groups) * kernel[0] * kernel[1]


@rule(nn.Conv2d, F.conv2d, torch.conv2d)
def _conv2d(call: Call) -> Conv2d:
    module = call.module
    if isinstance(module, nn.Conv2d):
        if module.padding_mode != "zeros":
            raise call.unsupported(f"padding_mode={module.padding_mode}")
        (shape,) = call.inputs()
        settings = (module.stride, module.padding, module.dilation, module.groups)
        return _made(call, shape, module.weight, module.bias, *settings)
    given = call.bound(input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1)
    return _made(call, given.pop("input").shape, *given.values())


def _made(
    call: Call,
    shape: Size,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Conv2d:
    dilation, kernel = _pair(dilation), weight.shape[2:]
    if padding == "same":
        whole = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        if any(total % 2 for total in whole):
            raise call.unsupported("padding='same' for an even kernel")
        padding = tuple(total // 2 for total in whole)
    padding = 0 if padding == "valid" else padding
    return Conv2d(weight, bias, _pair(stride), _pair(padding), dilation, groups, shape)


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else tuple(value)  # type: ignore[return-value]
