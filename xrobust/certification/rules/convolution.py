"""Convolutions, with any stride, zero padding, dilation and groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from xrobust.certification.operation import Affine
from xrobust.certification.rules.registry import Call, rule

Pair = tuple[int, int]


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
        # What the last strides do not reach must be added to get the input's size back.
        reached = (
            (side - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
            for side, stride, padding, dilation, kernel in zip(
                a.shape[2:], self.stride, self.padding, self.dilation, self.weight.shape[2:], strict=True
            )
        )
        missed = [size - got for size, got in zip(self.input_shape[1:], reached, strict=True)]
        return (
            F.conv_transpose2d(a, self.weight, None, self.stride, self.padding, missed, self.groups, self.dilation),
        )

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
