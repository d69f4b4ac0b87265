"""ReLU and leaky ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.certification.box import Box
from xrobust.certification.operation import ADAPTIVE, Line, Pointwise, Slope, through_slopes
from xrobust.certification.rules.registry import Call, rule


@dataclass(frozen=True, eq=False)
class LeakyReLU(Pointwise):
    """max(z, s·z) with 0 ≤ s ≤ 1; ReLU for s = 0.

    Where l < 0 < u, the upper line is the chord and the lower line goes through 0 with a slope α in [s, 1]. "adaptive":
    α is s or 1, whichever encloses the smaller area (Zhang et al. 2018, CROWN); "parallel": α is the chord's slope
    (Wong & Kolter 2018, Fast-Lin); or α is given.
    """

    negative: float = 0.0
    splits: ClassVar[bool] = True

    def apply(self, *inputs: Tensor) -> Tensor:
        return F.leaky_relu(inputs[0], self.negative) if self.negative else F.relu(inputs[0])

    def interval(self, *boxes: Box) -> Box:
        return Box(self.apply(boxes[0].lower), self.apply(boxes[0].upper))

    def gradient(self, g: Box, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        # s or 1 where the sign is known; [s, 1] elsewhere, at 0 and for NaN.
        lower, upper = boxes[0].lower, boxes[0].upper
        return (through_slopes(g, Box(self._slopes(lower > 0, lower), self._slopes(~(upper < 0), upper))),)

    def magnitude(self, *sizes: Tensor) -> Tensor:
        return 2 * sizes[0]

    def loose(self, box: Box) -> Tensor:
        return (box.lower < 0) & (box.upper > 0)

    def lines(self, box: Box, slope: Slope) -> tuple[Line, Line]:
        lower, upper = box.lower, box.upper
        unstable = self.loose(box)
        stable_slope = self._slopes(lower >= 0, lower)
        width = torch.where(unstable, upper - lower, 1)
        chord = torch.where(unstable, (upper - self.negative * lower) / width, stable_slope)
        offset = torch.where(unstable, (self.negative - chord) * lower, 0)
        if isinstance(slope, Tensor):
            alpha = torch.where(unstable.unsqueeze(1), slope, stable_slope.unsqueeze(1))
        elif slope == ADAPTIVE:
            alpha = torch.where(unstable, self.adaptive(box), stable_slope)
        else:
            alpha = chord
        return (alpha, None), (chord, offset)

    def adaptive(self, box: Box) -> Tensor:
        """The slope of the lower line that encloses the smaller area, for unstable units."""
        return self._slopes(box.upper > -box.lower, box.lower)

    def _slopes(self, rising: Tensor, like: Tensor) -> Tensor:
        """1 where it is rising, s elsewhere, in full precision."""
        return torch.full_like(like, self.negative).masked_fill(rising, 1.0)


@rule(nn.ReLU, F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
def _relu(call: Call) -> LeakyReLU:
    call.inputs()
    return LeakyReLU()


@rule(nn.LeakyReLU, F.leaky_relu, F.leaky_relu_)
def _leaky_relu(call: Call) -> LeakyReLU:
    if isinstance(call.module, nn.LeakyReLU):
        slope = call.module.negative_slope
    else:
        slope = call.bound(input=None, negative_slope=0.01, inplace=False)["negative_slope"]
    if not 0 <= slope <= 1:
        raise call.unsupported(f"negative_slope={slope}")
    return LeakyReLU(float(slope))
