"""Lipschitz constants in L2 from the image to each node of a network: one rule for each operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Size, Tensor

from xrobust.certification.graph import Network
from xrobust.certification.operation import Affine, Operation
from xrobust.certification.rules.convolution import Conv2d
from xrobust.certification.rules.linear import Linear
from xrobust.certification.rules.max_pool import MaxPool2d
from xrobust.certification.rules.min_max import MinMax
from xrobust.certification.rules.registry import UnsupportedOperation
from xrobust.certification.rules.relu import LeakyReLU
from xrobust.certification.rules.scaling import Scaling
from xrobust.certification.rules.sll import SLL
from xrobust.certification.rules.smooth import Smooth
from xrobust.certification.rules.structure import Reshape, Structure, Sum

Value = Tensor | float
Norm = Callable[[int, Linear | Conv2d, Size], Value]  # node, operation, input's shape → ‖A‖₂ or an estimate of it
ROUNDING = 1 + 16 * torch.finfo(torch.float64).eps  # of one rule


@dataclass(frozen=True, eq=False)
class Layer:
    """One operation in its place.

    Attributes:
        node: of its result.
        shapes: of its inputs, without the batch.
        norm: of weighted layers.
    """

    node: int
    shapes: tuple[Size, ...]
    norm: Norm


def constants(network: Network, norm: Norm, last: int) -> list[Value]:
    """K for each node up to `last`, the image first: ‖node(x) − node(x′)‖₂ ≤ K·‖x − x′‖₂.

    Upper bounds if the norms are; differentiable if they are.

    Raises:
        UnsupportedOperation: naming the operation and its module.
    """
    found: list[Value] = [1.0]
    for node in range(1, last + 1):
        found.append(after(network, node, [found[i] for i in network.inputs(node)], norm))
    return found


def after(network: Network, node: int, inputs: Sequence[Value], norm: Norm) -> Value:
    """How far a node can move in L2 if its inputs move by `inputs`: linear in these distances."""
    operation = network.operation(node)
    rule = move.registry.get(type(operation))  # of exactly that type: a subclass may compute something else
    if rule is None:
        where = network.graph.steps[node - 1].where
        raise UnsupportedOperation(
            f"no Lipschitz constant is known for {type(operation).__name__}, at {where!r} of the model"
        )
    shapes = tuple(network.shapes[i] for i in network.inputs(node))
    return rule(operation, inputs, Layer(node, shapes, norm)) * ROUNDING


@singledispatch
def move(operation: Operation, inputs: Sequence[Value], layer: Layer) -> Value:
    """The rule for operations of a type."""
    raise NotImplementedError


@move.register(Linear)
@move.register(Conv2d)
def _(operation: Linear | Conv2d, inputs: Sequence[Value], layer: Layer) -> Value:
    return inputs[0] * layer.norm(layer.node, operation, layer.shapes[0])


@move.register
def _(operation: Scaling, inputs: Sequence[Value], layer: Layer) -> Value:
    scale = operation.scale
    return inputs[0] * (scale.abs().amax() if isinstance(scale, Tensor) else abs(scale))


@move.register
def _(operation: Reshape, inputs: Sequence[Value], layer: Layer) -> Value:
    return inputs[0]


@move.register
def _(operation: Sum, inputs: Sequence[Value], layer: Layer) -> Value:
    return inputs[0] + inputs[1]


@move.register
def _(operation: Structure, inputs: Sequence[Value], layer: Layer) -> Value:
    distance = inputs[0] if len(inputs) == 1 else sum(each * each for each in inputs) ** 0.5
    return distance * schur_bound(operation, layer.shapes)


@move.register(LeakyReLU)
@move.register(MinMax)
def _(operation: Operation, inputs: Sequence[Value], layer: Layer) -> Value:
    return inputs[0]


@move.register
def _(operation: Smooth, inputs: Sequence[Value], layer: Layer) -> Value:
    return inputs[0] * operation.steepest


@move.register
def _(operation: SLL, inputs: Sequence[Value], layer: Layer) -> Value:
    return inputs[0] * (1 + 8 * torch.finfo(torch.float64).eps * operation.terms)


@move.register
def _(operation: MaxPool2d, inputs: Sequence[Value], layer: Layer) -> Value:
    """|max − max′| of a window is at most the largest change in it, and an input is in so many windows."""
    return inputs[0] * windows_of_an_input(operation) ** 0.5


def schur_bound(operation: Affine, shapes: Sequence[Size]) -> float:
    """‖A‖₂ ≤ √(‖A‖₁·‖A‖_∞), for maps without negative coefficients: the largest sums of columns and rows."""
    with torch.no_grad():
        rows = operation.linear(*(torch.ones(1, *shape, dtype=torch.float64) for shape in shapes))
        columns = operation.transpose(torch.ones_like(rows))
    return float(rows.amax() * max(each.amax() for each in columns)) ** 0.5 * (1 + torch.finfo(torch.float64).eps)


def windows_of_an_input(pooling: MaxPool2d) -> int:
    """The largest number of windows that one input is in."""
    count = 1
    for dim in range(2):
        outputs = torch.arange(pooling.shape_out[1 + dim]) * pooling.stride[dim] - pooling.padding[dim]
        places = outputs[:, None] + torch.arange(pooling.kernel[dim]) * pooling.dilation[dim]
        inside = places[(places >= 0) & (places < pooling.shape_in[1 + dim])]
        count *= int(inside.bincount().amax())
    return count
