"""SDP-based Lipschitz layers: a residual block as one operation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.certification.bounds import GUARD
from xrobust.certification.box import Box
from xrobust.certification.operation import Affine, Operation, Pulled, Slope
from xrobust.certification.rules.convolution import Conv2d
from xrobust.certification.rules.linear import Linear
from xrobust.certification.rules.registry import Call, rule
from xrobust.certification.rules.relu import LeakyReLU
from xrobust.certification.rules.scaling import Scaling
from xrobust.models.one_lipschitz import SLLConv2d, SLLLinear


@dataclass(frozen=True, eq=False)
class SLL(Operation):
    """x ↦ x + chain(x); 1-Lipschitz by the choice of T in chain(x) = −2 Vᵀ T⁻¹ ReLU(V x + b).

    Attributes:
        chain: the operations of the branch in turn.
        summed: how many products enter an entry of T, which bounds what rounding may add to the constant 1.
    """

    chain: tuple[Operation, ...]
    summed: int

    def apply(self, *inputs: Tensor) -> Tensor:
        z = inputs[0]
        for operation in self.chain:
            z = operation.apply(z)
        return inputs[0] + z

    def interval(self, *boxes: Box) -> Box:
        last = self._boxes(boxes[0])[-1]
        return Box(boxes[0].lower + last.lower, boxes[0].upper + last.upper)

    def gradient(self, g: Box, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        # The walk allows for the rounding of one operation; within the chain each needs an allowance of its own.
        unit = torch.finfo(g.lower.dtype).eps * (self.terms + GUARD)
        taken = [boxes[0]]
        for operation in self.chain[:-1]:
            size = operation.magnitude(taken[-1].size)
            taken.append(operation.interval(taken[-1]).widened(unit * size))
        along = g
        for operation, box in zip(self.chain[::-1], taken[::-1], strict=True):
            (along,) = operation.gradient(along.widened(unit * along.size), (box,))
        return (Box(g.lower + along.lower, g.upper + along.upper),)

    def pull(self, a: Tensor, boxes: tuple[Box, ...], slope: Slope) -> Pulled:
        along, constants = a, list[tuple[Tensor, Tensor]]()
        for operation, box in zip(self.chain[::-1], self._boxes(boxes[0])[-2::-1], strict=True):
            pulled = operation.pull(along, (box,), slope)
            (along,) = pulled.inputs
            constants += pulled.constants
        return Pulled((a + along,), tuple(constants))

    def magnitude(self, *sizes: Tensor) -> Tensor:
        size = sizes[0]
        for operation in self.chain:
            size = operation.magnitude(size)
        return sizes[0] + size

    @property
    def terms(self) -> int:
        return sum(operation.terms for operation in self.chain) + self.summed

    def loose(self, box: Box) -> Tensor:
        return box.upper > box.lower

    def _boxes(self, box: Box) -> list[Box]:
        """What goes into each operation of the chain, and what comes out at its end."""
        boxes = [box]
        for operation in self.chain:
            boxes.append(operation.interval(boxes[-1]))
        return boxes


@dataclass(frozen=True, eq=False)
class Adjoint(Affine):
    """The transpose of a linear layer or a convolution."""

    of: Linear | Conv2d

    def linear(self, *inputs: Tensor) -> Tensor:
        return self.of.transpose(inputs[0])[0]

    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self.of.linear(a),)

    @property
    def unsigned(self) -> Adjoint:
        return Adjoint(self.of.unsigned)

    @property
    def terms(self) -> int:
        return self.of.terms


@rule(SLLLinear, SLLConv2d)
def _sll(call: Call) -> SLL:
    module = call.module
    assert isinstance(module, SLLLinear | SLLConv2d)
    (shape,) = call.inputs()
    weight, bias, inverse = module.weight, module.bias, -2 / module.diagonal()
    inner: Linear | Conv2d
    if isinstance(module, SLLConv2d):
        inner = Conv2d(weight, bias, (1, 1), (module.padding, module.padding), (1, 1), 1, shape)
        inverse = inverse.view(-1, 1, 1)
    else:
        inner = Linear(weight, bias)
    taps = (2 * weight.shape[-1] - 1) ** 2 if weight.dim() == 4 else 1
    summed = weight[0].numel() + len(weight) * taps
    return SLL((inner, LeakyReLU(), Scaling(inverse, None), Adjoint(inner)), summed)
