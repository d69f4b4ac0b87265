"""Max pooling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from xrobust.certification.box import Box
from xrobust.certification.operation import Operation, Pulled, Slope
from xrobust.certification.rules.registry import Call, rule

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class MaxPool2d(Operation):
    """The largest value of each window.

    Lower line: the input with the largest lower bound. Upper line: the same input where it is at least every upper
    bound of the others, so that the pooling is exact there; elsewhere the constant max u.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    shape_in: Size
    shape_out: Size

    @property
    def _window(self) -> tuple[Pair, Pair, Pair, Pair]:
        return self.kernel, self.stride, self.padding, self.dilation

    def apply(self, *inputs: Tensor) -> Tensor:
        return F.max_pool2d(inputs[0], *self._window)

    def interval(self, *boxes: Box) -> Box:
        return Box(self.apply(boxes[0].lower), self.apply(boxes[0].upper))

    def magnitude(self, *sizes: Tensor) -> Tensor:
        return self.apply(sizes[0])

    @property
    def terms(self) -> int:
        return self.kernel[0] * self.kernel[1]  # on the way back: at most so many windows share an input

    def loose(self, box: Box) -> Tensor:
        return box.upper > box.lower

    def pull(self, a: Tensor, boxes: tuple[Box, ...], slope: Slope) -> Pulled:
        lower, upper = boxes[0].lower, boxes[0].upper
        best, index = F.max_pool2d_with_indices(lower, *self._window)  # positions within a channel's H·W
        others = self._largest_of_others(upper, index)
        exact = (best >= others).unsqueeze(1)
        through = torch.where(exact, a, a.clamp(min=0))
        channels = a.new_zeros((*a.shape[:2], self.shape_in[0], self.shape_in[1] * self.shape_in[2]))
        places = index.flatten(2).unsqueeze(1).expand(-1, a.shape[1], -1, -1)
        pulled = channels.scatter_add(3, places, through.flatten(3)).unflatten(3, self.shape_in[1:])
        ceiling = self.apply(upper).unsqueeze(1)
        return Pulled((pulled,), ((a.clamp(max=0).masked_fill(exact, 0), ceiling),))

    def gradient(self, g: Box, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        # Each window hands its gradient on to its winner: one that may win takes any share of it, one that must, all.
        lower, upper = (self._windows(corner, -torch.inf) for corner in (boxes[0].lower, boxes[0].upper))
        may_win = ~(upper < lower.amax(2, keepdim=True))
        must_win = may_win & (may_win.sum(2, keepdim=True) == 1)
        handed_on = []
        for corner, limit in ((g.lower, {"max": 0.0}), (g.upper, {"min": 0.0})):
            whole = corner.flatten(2).unsqueeze(2)
            shares = torch.where(must_win, whole, whole.clamp(**limit)).masked_fill(~may_win, 0).flatten(1, 2)
            handed_on.append(F.fold(shares, self.shape_in[1:], self.kernel, self.dilation, self.padding, self.stride))
        return (Box(*handed_on),)

    def _windows(self, values: Tensor, filler: float) -> Tensor:
        """The values in each window, with a filler beyond the border: (N, C, H, W) → (N, C, k, windows)."""
        pad_height, pad_width = self.padding
        padded = F.pad(values, (pad_width, pad_width, pad_height, pad_height), value=filler)
        unfolded = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        return unfolded.unflatten(1, (self.shape_in[0], -1))

    def _largest_of_others(self, upper: Tensor, index: Tensor) -> Tensor:
        """The largest upper bound in each window apart from that of the chosen input."""
        position = torch.arange(self.shape_in[1] * self.shape_in[2], device=upper.device, dtype=upper.dtype)
        position = position.view(self.shape_in[1:]).expand_as(upper)
        chosen = self._windows(position, -1.0) == index.flatten(2).unsqueeze(2).to(upper.dtype)
        others = self._windows(upper, -torch.inf).masked_fill(chosen, -torch.inf)
        return others.amax(2).unflatten(2, self.shape_out[1:])


@rule(nn.MaxPool2d, F.max_pool2d, torch.max_pool2d)
def _max_pool(call: Call) -> MaxPool2d:
    (shape,) = call.inputs()
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    if call.module is not None:
        given = {name: getattr(call.module, name) for name in names}
    else:
        given = call.bound(
            input=None, kernel_size=None, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False
        )
    if given["ceil_mode"]:
        raise call.unsupported("ceil_mode=True")
    kernel = _pair(given["kernel_size"])
    return MaxPool2d(
        kernel,
        _pair(given["stride"] or kernel),
        _pair(given["padding"]),
        _pair(given["dilation"]),
        shape,
        call.shape,
    )


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else value
