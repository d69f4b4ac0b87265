"""MinMax: pairs of neighbouring channels, sorted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.certification.box import Box
from xrobust.certification.operation import ADAPTIVE, Operation, Pulled, Slope
from xrobust.certification.rules.registry import Call, rule
from xrobust.certification.rules.relu import LeakyReLU
from xrobust.models.activation import MinMax as MinMaxModule


@dataclass(frozen=True, eq=False)
class MinMax(Operation):
    """(a, b) ↦ (a − r, b + r) with r = ReLU(a − b), so that one relaxation of r serves both outputs."""

    def apply(self, *inputs: Tensor) -> Tensor:
        first, second = _pairs(inputs[0], 1)
        return _interleaved(torch.minimum(first, second), torch.maximum(first, second), 1)

    def interval(self, *boxes: Box) -> Box:
        return Box(self.apply(boxes[0].lower), self.apply(boxes[0].upper))

    def magnitude(self, *sizes: Tensor) -> Tensor:
        first, second = _pairs(sizes[0], 1)
        both = 3 * (first + second)
        return _interleaved(both, both, 1)

    def loose(self, box: Box) -> Tensor:
        crossing = LeakyReLU().loose(_difference(box))
        return _interleaved(crossing, crossing, 1)

    def gradient(self, g: Box, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        difference = _difference(boxes[0])
        kept, swapped = difference.upper < 0, difference.lower > 0  # which of a and b is the larger is known
        corners = []
        for side, extreme in ((g.lower, torch.minimum), (g.upper, torch.maximum)):
            of_min, of_max = _pairs(side, 1)
            either = extreme(of_min, of_max)
            first = torch.where(kept, of_min, torch.where(swapped, of_max, either))
            second = torch.where(kept, of_max, torch.where(swapped, of_min, either))
            corners.append(_interleaved(first, second, 1))
        return (Box(*corners),)

    def pull(self, a: Tensor, boxes: tuple[Box, ...], slope: Slope) -> Pulled:
        of_min, of_max = _pairs(a, 2)
        # Slopes that are given are those of ReLUs; there are none for r.
        line = LeakyReLU().pull(
            of_max - of_min, (_difference(boxes[0]),), ADAPTIVE if torch.is_tensor(slope) else slope
        )
        (along,) = line.inputs
        return Pulled((_interleaved(of_min + along, of_max - along, 2),), line.constants)


def _pairs(z: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    paired = z.unflatten(dim, (-1, 2))
    return paired.select(dim + 1, 0), paired.select(dim + 1, 1)


def _interleaved(first: Tensor, second: Tensor, dim: int) -> Tensor:
    return torch.stack([first, second], dim + 1).flatten(dim, dim + 1)


def _difference(box: Box) -> Box:
    """The interval of a − b."""
    (lower_a, lower_b), (upper_a, upper_b) = _pairs(box.lower, 1), _pairs(box.upper, 1)
    return Box(lower_a - upper_b, upper_a - lower_b)


@rule(MinMaxModule)
def _min_max(call: Call) -> MinMax:
    call.inputs()
    return MinMax()
