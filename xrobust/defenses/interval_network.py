"""The same network in operations that are cheaper to differentiate interval arithmetic through."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xrobust.certification import Box, Network
from xrobust.certification.operation import ADAPTIVE, Line, Operation, Slope
from xrobust.certification.rules.convolution import Conv2d
from xrobust.certification.rules.linear import Linear
from xrobust.certification.rules.relu import LeakyReLU
from xrobust.certification.rules.scaling import Scaling
from xrobust.certification.rules.structure import Reshape


def for_training(network: Network) -> Network:
    """The network with batch norms folded into the layers before them, and ReLUs that keep centre and radius.

    Values, bounds and gradients are the same up to rounding, and nodes keep their places; that of a folded layer has
    the values of the batch norm after it.
    """
    operations = list(network.operations)
    uses = Counter(source for node in range(1, network.output + 1) for source in network.inputs(node))
    for node in range(1, network.output + 1):
        operation = operations[node - 1]
        if isinstance(operation, LeakyReLU) and not operation.negative:
            operations[node - 1] = CentredReLU()
        elif isinstance(operation, Scaling):
            (source,) = network.inputs(node)
            layer = operations[source - 1] if source else None
            folded = _folded(layer, operation) if uses[source] == 1 else None
            if folded is not None:
                shape = network.shapes[node]
                operations[source - 1], operations[node - 1] = folded, Reshape(shape, shape)
    return Network(network.graph, tuple(operations))


def _folded(layer: Operation | None, scaling: Scaling) -> Operation | None:
    """The layer and the scaling of its channels as one layer; none if they are something else."""
    scale, shift = scaling.scale, scaling.shift
    if not isinstance(layer, Conv2d | Linear) or not isinstance(scale, Tensor) or shift is None:
        return None
    channels = (len(layer.weight), 1, 1) if isinstance(layer, Conv2d) else (len(layer.weight),)
    if scale.shape != channels or shift.shape != channels:
        return None
    scale, shift = scale.flatten(), shift.flatten()
    weight = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
    return replace(layer, weight=weight, bias=shift if layer.bias is None else layer.bias * scale + shift)


@dataclass(frozen=True, eq=False)
class CentredReLU(LeakyReLU):
    """ReLU whose intervals come as centre and radius and leave so, and whose lines are made in fewer passes."""

    def interval(self, *boxes: Box) -> Box:
        return Box.around(*_CentredReLU.apply(boxes[0].centre, boxes[0].radius))

    def lines(self, box: Box, slope: Slope) -> tuple[Line, Line]:
        if isinstance(slope, Tensor):
            return super().lines(box, slope)
        # For stable units the chord's slope is 0 or 1 and its offset 0 without further ado.
        rise, fall = box.upper.relu(), box.lower.neg().relu()
        chord = rise / (rise + fall).clamp(min=torch.finfo(rise.dtype).tiny)
        below = (rise > fall).to(rise.dtype) if slope == ADAPTIVE else chord
        return (below, None), (chord, chord * fall)


class _CentredReLU(torch.autograd.Function):
    """(c, r) ↦ ((u⁺ + l⁺) / 2, (u⁺ − l⁺) / 2) with u = c + r and l = c − r."""

    @staticmethod
    def forward(ctx: Any, centre: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        upper, lower = (centre + radius).relu_().mul_(0.5), (centre - radius).relu_().mul_(0.5)
        ctx.save_for_backward(upper, lower)
        return upper + lower, upper - lower

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        centre, radius = gradients
        upper, lower = ctx.saved_tensors
        upper = torch.ops.aten.threshold_backward((centre + radius).mul_(0.5), upper, 0)
        lower = torch.ops.aten.threshold_backward((centre - radius).mul_(0.5), lower, 0)
        return upper + lower, upper - lower
