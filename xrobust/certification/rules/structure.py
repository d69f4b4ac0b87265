"""What only moves, copies, adds or averages numbers: reshaping, concatenation, sums of branches, average pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from xrobust.certification.operation import Affine
from xrobust.certification.rules.registry import Call, Input, rule


@dataclass(frozen=True, eq=False)
class Structure(Affine):
    """A linear map without weights, all of whose coefficients are ≥ 0; its adjoint is left to autograd.

    Args:
        function: inputs (M, *input shape) → (M, *shape).
        shapes: of the inputs, without the batch.
        summed: how many numbers are added up for one output or, backwards, for one input.
    """

    function: Callable[..., Tensor]
    shapes: tuple[Size, ...]
    summed: int = 0

    def linear(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        recorded = a.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            inputs = [a.new_zeros((len(a), *shape), requires_grad=True) for shape in self.shapes]
            return torch.autograd.grad(self.function(*inputs), inputs, a, create_graph=recorded)

    @property
    def unsigned(self) -> Structure:
        return self

    @property
    def terms(self) -> int:
        return self.summed


@dataclass(frozen=True, eq=False)
class Reshape(Affine):
    """The same numbers in another shape."""

    shape_in: Size
    shape_out: Size

    def linear(self, *inputs: Tensor) -> Tensor:
        return inputs[0].reshape(-1, *self.shape_out)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.reshape(-1, *self.shape_in),)

    @property
    def unsigned(self) -> Reshape:
        return self


@dataclass(frozen=True, eq=False)
class Sum(Affine):
    """a + sign · b for two branches of equal shape."""

    sign: float

    @staticmethod
    def of(call: Call, sign: float) -> Sum:
        """The sum of a call's two inputs."""
        first, second = call.inputs()
        if first != second:
            raise call.unsupported(f"shapes {tuple(first)} and {tuple(second)}")
        return Sum(sign)

    def linear(self, *inputs: Tensor) -> Tensor:
        return torch.add(inputs[0], inputs[1], alpha=self.sign)

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return a, a if self.sign == 1 else -a

    @property
    def unsigned(self) -> Sum:
        return Sum(1.0)

    @property
    def terms(self) -> int:
        return 2


@rule(
    nn.Flatten,
    nn.Unflatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    torch.flatten,
    torch.reshape,
    "flatten",
    "view",
    "reshape",
    "contiguous",
    "unsqueeze",
    "squeeze",
)
def _reshape(call: Call) -> Reshape:
    (shape,) = call.inputs()
    return Reshape(shape, call.shape)


@rule(F.dropout, F.dropout2d)
def _dropout(call: Call) -> Reshape:
    if call.bound(input=None, p=0.5, training=True, inplace=False)["training"]:
        raise call.unsupported("training=True")
    (shape,) = call.inputs()
    return Reshape(shape, call.shape)


@rule(torch.cat, torch.concat)
def _cat(call: Call) -> Structure:
    given = call.bound(tensors=None, dim=0)
    tensors, dim = given["tensors"], given["dim"]
    if not all(isinstance(each, Input) for each in tensors) or dim == 0:
        raise call.unsupported("constants, or along the batch")
    return Structure(lambda *inputs: torch.cat(inputs, dim), tuple(each.shape for each in tensors))


@rule(torch.permute, "permute")
def _permute(call: Call) -> Structure:
    (shape,) = call.inputs()
    dims = call.kwargs["dims"] if call.kwargs else call.args[1:] if len(call.args) > 2 else call.args[1]
    if dims[0] != 0:
        raise call.unsupported("the batch moved")
    return Structure(lambda z: z.permute(*dims), (shape,))


@rule(torch.transpose, "transpose")
def _transpose(call: Call) -> Structure:
    (shape,) = call.inputs()
    given = call.bound(input=None, dim0=None, dim1=None)
    dims = given["dim0"], given["dim1"]
    if any(d % (len(shape) + 1) == 0 for d in dims):
        raise call.unsupported("the batch moved")
    return Structure(lambda z: z.transpose(*dims), (shape,))


@rule(nn.AvgPool2d, F.avg_pool2d)
def _avg_pool(call: Call) -> Structure:
    (shape,) = call.inputs()
    args, kwargs = call.args[1:], dict(call.kwargs)
    average = (lambda z: F.avg_pool2d(z, *args, **kwargs)) if call.module is None else call.module.forward
    if (average(torch.ones(1, *shape)) < 0).any():
        raise call.unsupported("a negative divisor_override")
    return Structure(average, (shape,), _area(shape))


@rule(nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d)
def _adaptive_avg_pool(call: Call) -> Structure:
    (shape,) = call.inputs()
    height, width = call.shape[1:]
    return Structure(lambda z: F.adaptive_avg_pool2d(z, (height, width)), (shape,), _area(shape))


@rule(torch.mean, "mean")
def _mean(call: Call) -> Structure:
    (shape,) = call.inputs()
    given: dict[str, Any] = call.bound(input=None, dim=None, keepdim=False)
    dims = given["dim"]
    dims = [dims] if isinstance(dims, int) else dims
    if dims is None or any(d % (len(shape) + 1) == 0 for d in dims):
        raise call.unsupported("the batch among its dimensions")
    return Structure(lambda z: z.mean(dims, given["keepdim"]), (shape,), shape.numel())


def _area(shape: Size) -> int:
    return shape[-1] * shape[-2]
