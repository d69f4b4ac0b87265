"""Scaling and shifting by constants: normalisation, batch norm, arithmetic with constants."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.certification.box import Box
from xrobust.certification.operation import Affine, PulledWindows, Slope
from xrobust.certification.rules.registry import Call, Input, rule
from xrobust.certification.rules.structure import Sum
from xrobust.certification.windows import Windows


@dataclass(frozen=True, eq=False)
class Scaling(Affine):
    """z ↦ scale · z + shift, elementwise; scale and shift broadcast against z's shape without the batch.

    `terms_of_shift` is what the shift was added up from, in absolute values, if that is more than the shift itself.
    """

    scale: Tensor | float
    shift: Tensor | None
    terms_of_shift: Tensor | None = None

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * self.scale

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a * self.scale,)

    def pull_windows(self, a: Windows, boxes: tuple[Box, ...], slope: Slope) -> PulledWindows | None:
        if not (_of_channels(self.scale) and _of_channels(self.shift)):
            return None
        pulled = a.replaced(a.coefficients * _in_windows(a, self.scale))
        return PulledWindows((pulled,), () if self.shift is None else ((a.coefficients, _in_windows(a, self.shift)),))

    @property
    def unsigned(self) -> Scaling:
        return Scaling(self.scale.abs() if isinstance(self.scale, Tensor) else abs(self.scale), None)

    @property
    def offset(self) -> Tensor | None:
        return self.shift

    def magnitude(self, *sizes: Tensor) -> Tensor:
        return super().magnitude(*sizes) if self.terms_of_shift is None else self.absolute(*sizes) + self.terms_of_shift

    @property
    def terms(self) -> int:
        return 4  # scale and shift may themselves have been computed


def _of_channels(constant: Tensor | float | None) -> bool:
    """Whether it is one number, or one for each channel."""
    return not isinstance(constant, Tensor) or not constant.dim() or constant.shape[1:] == (1, 1)


def _in_windows(a: Windows, constant: Tensor | float) -> Tensor:
    constant = torch.as_tensor(constant).to(a.coefficients)
    return a.of(constant) if constant.dim() else constant


@rule(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(call: Call) -> Scaling:
    """γ · (z − μ) / √(σ² + ε) + β: running statistics, or in training those of the batch where they are given."""
    module = call.module
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
    mean, variance = module.running_mean, module.running_var
    if module.training and call.where in call.statistics:
        mean, variance = call.statistics[call.where]
    if mean is None or variance is None:
        raise call.unsupported("the statistics of the batch")
    (shape,) = call.inputs()
    scale = torch.rsqrt(variance + module.eps)
    if module.weight is not None:
        scale = scale * module.weight
    bias = torch.zeros_like(mean) if module.bias is None else module.bias
    channels = (-1, *[1] * (len(shape) - 1))
    added = bias.abs() + (mean * scale).abs()
    return Scaling(scale.view(channels), (bias - mean * scale).view(channels), added.view(channels))


@rule(operator.add, operator.iadd, torch.add, "add", "add_")
def _add(call: Call) -> Affine:
    left, right = _operands(call)
    if isinstance(left, Input) and isinstance(right, Input):
        return Sum.of(call, 1.0)
    return Scaling(1.0, _constant(call, right if isinstance(left, Input) else left))


@rule(operator.sub, operator.isub, torch.sub, "sub", "sub_")
def _sub(call: Call) -> Affine:
    left, right = _operands(call)
    if isinstance(left, Input) and isinstance(right, Input):
        return Sum.of(call, -1.0)
    if isinstance(left, Input):
        return Scaling(1.0, -_constant(call, right))
    return Scaling(-1.0, _constant(call, left))


@rule(operator.mul, operator.imul, torch.mul, "mul", "mul_")
def _mul(call: Call) -> Affine:
    left, right = _operands(call)
    if isinstance(left, Input) and isinstance(right, Input):
        raise call.unsupported("two factors that depend on the image")
    return Scaling(_constant(call, right if isinstance(left, Input) else left), None)


@rule(operator.truediv, operator.itruediv, torch.div, "div", "div_")
def _div(call: Call) -> Affine:
    _, right = _operands(call)
    if isinstance(right, Input):
        raise call.unsupported("a divisor that depends on the image")
    return Scaling(1 / _constant(call, right), None)


@rule(operator.neg, torch.neg, "neg")
def _neg(call: Call) -> Affine:
    return Scaling(-1.0, None)


def _operands(call: Call) -> tuple[Any, Any]:
    given = call.bound(input=None, other=None, alpha=1, rounding_mode=None)
    if given["alpha"] != 1 or given["rounding_mode"] is not None:
        raise call.unsupported("alpha or rounding_mode")
    return given["input"], given["other"]


def _constant(call: Call, value: Any) -> Tensor:
    """A constant that broadcasts against the input's shape without the batch."""
    constant = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    shape = next(each.shape for each in (*call.args, *call.kwargs.values()) if isinstance(each, Input))
    if constant.dim() == len(shape) + 1 and len(constant) == 1:
        constant = constant[0]
    if constant.dim() > len(shape) or call.shape != shape:
        raise call.unsupported(f"a constant of shape {tuple(constant.shape)}")
    return constant
