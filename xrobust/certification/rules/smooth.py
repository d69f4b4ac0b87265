"""Smooth activations: sigmoid, tanh, SiLU, GELU, softplus."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.certification.box import Box
from xrobust.certification.operation import Line, Pointwise, Slope, through_slopes
from xrobust.certification.rules.registry import Call, rule

Function = Callable[[Tensor], Tensor]
HALVINGS = {torch.float32: 26, torch.float64: 54}


@dataclass(frozen=True, eq=False)
class Smooth(Pointwise):
    """A smooth function of one variable between two lines, each the best of a few slopes.

    For any slope k, kz + min(f − k·id) and kz + max(f − k·id) over [l, u] are sound lines. The extremes lie at l, at u,
    or where f′ = k; between two inflection points f′ is monotone, so that bisection finds each such place. Of the
    slopes of the chord, of the tangents at both ends and in the middle, and of those halfway to the chord, the one is
    taken whose line is nearest to f in the middle of [l, u]: the smallest area.

    Args:
        function, derivative: f and f′.
        inflections: where f″ changes its sign, upwards.
        minimum: where f turns from falling to rising; −∞ if it always rises.
        steepest: a bound of |f′|.
        lower_by, steeper_by: how much lower than f, and steeper, what the network computes may be.
    """

    function: Function
    derivative: Function
    inflections: tuple[float, ...]
    minimum: float
    steepest: float
    lower_by: float = 0.0
    steeper_by: float = 0.0

    def apply(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def interval(self, *boxes: Box) -> Box:
        lower, upper = boxes[0].lower, boxes[0].upper
        at_lower, at_upper = self.function(lower), self.function(upper)
        least = at_lower if self.minimum == -math.inf else self.function(_clamped(self.minimum, lower, upper))
        return Box(least - self.lower_by, torch.maximum(at_lower, at_upper))

    def gradient(self, g: Box, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        # The extremes of f′ over [l, u] lie at l, at u or at an inflection point of f.
        lower, upper = boxes[0].lower, boxes[0].upper
        points = torch.stack([lower, *(_clamped(point, lower, upper) for point in self.inflections), upper])
        slopes = self.derivative(points)
        rounding = self.terms * torch.finfo(lower.dtype).eps * self.steepest
        return (through_slopes(g, Box(slopes.amin(0) - rounding, slopes.amax(0) + rounding + self.steeper_by)),)

    def magnitude(self, *sizes: Tensor) -> Tensor:
        return 3 * self.steepest * sizes[0] + self.function(torch.zeros_like(sizes[0])).abs()

    @property
    def terms(self) -> int:
        return 16  # the rounding of f itself, and of f′

    def loose(self, box: Box) -> Tensor:
        return box.upper > box.lower

    def lines(self, box: Box, slope: Slope) -> tuple[Line, Line]:
        lower, upper = box.lower, box.upper
        middle = (lower + upper) / 2
        slopes = self._slopes(lower, middle, upper)
        floor, ceiling = self._offsets(slopes, lower, upper)

        def nearest(offsets: Tensor, side: int) -> Line:
            best = (side * (slopes * middle + offsets)).argmax(0, keepdim=True)
            return slopes.gather(0, best)[0], offsets.gather(0, best)[0]

        return nearest(floor - self.lower_by, 1), nearest(ceiling, -1)

    def _slopes(self, lower: Tensor, middle: Tensor, upper: Tensor) -> Tensor:
        """The slopes to choose from: (6, N, ...)."""
        width = upper - lower
        wide = width > 1e-6
        tangents = self.derivative(torch.stack([middle, lower, upper]))
        rise = self.function(upper) - self.function(lower)
        chord = torch.where(wide, rise / torch.where(wide, width, 1), tangents[0])
        return torch.cat([chord.unsqueeze(0), tangents, (tangents[1:] + chord) / 2])

    def _offsets(self, slopes: Tensor, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        """min and max of f(z) − k·z over [l, u] for each slope k."""
        least = greatest = None
        edges = [lower, *(_clamped(point, lower, upper) for point in self.inflections), upper]
        inner = [self._touching(slopes, *piece) for piece in pairwise(edges)]
        for z in (lower, upper, *inner):
            gap = self.function(z) - slopes * z
            least = gap if least is None else torch.minimum(least, gap)
            greatest = gap if greatest is None else torch.maximum(greatest, gap)
        assert least is not None and greatest is not None
        return least, greatest

    @torch.no_grad()
    def _touching(self, slopes: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Where f′ = k between two points with monotone f′ between them; an end where it is nowhere so."""
        start, end = start.expand_as(slopes), end.expand_as(slopes)
        below = self.derivative(start) < slopes
        for _ in range(HALVINGS[slopes.dtype]):
            middle = (start + end) / 2
            onwards = (self.derivative(middle) < slopes) == below
            start, end = torch.where(onwards, middle, start), torch.where(onwards, end, middle)
        return (start + end) / 2


def _clamped(point: float, lower: Tensor, upper: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(torch.full_like(lower, point), lower), upper)


def _sigmoid_slope(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _silu_slope(z: Tensor) -> Tensor:
    rate = torch.sigmoid(z)
    return rate * (1 + z * torch.sigmoid(-z))


def _gelu_slope(z: Tensor) -> Tensor:
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return torch.special.ndtr(z) + z * density


@rule(nn.Sigmoid, torch.sigmoid, F.sigmoid, "sigmoid")
def _sigmoid(call: Call) -> Smooth:
    call.inputs()
    return Smooth(torch.sigmoid, _sigmoid_slope, (0.0,), -math.inf, 0.25)


@rule(nn.Tanh, torch.tanh, F.tanh, "tanh")
def _tanh(call: Call) -> Smooth:
    call.inputs()
    return Smooth(torch.tanh, lambda z: 1 - torch.tanh(z).square(), (0.0,), -math.inf, 1.0)


@rule(nn.SiLU, F.silu)
def _silu(call: Call) -> Smooth:
    call.inputs()
    bend = 2.3993572805154
    return Smooth(F.silu, _silu_slope, (-bend, bend), -1.278464542761074, 1.1)


@rule(nn.GELU, F.gelu)
def _gelu(call: Call) -> Smooth:
    given = (
        {"approximate": getattr(call.module, "approximate", "none")}
        if call.module
        else call.bound(input=None, approximate="none")
    )
    if given["approximate"] != "none":
        raise call.unsupported(f"approximate={given['approximate']}")
    bend = math.sqrt(2)
    return Smooth(F.gelu, _gelu_slope, (-bend, bend), -0.7517915246935645, 1.13)


@rule(nn.Softplus)
def _softplus(call: Call) -> Smooth:
    module = call.module
    assert isinstance(module, nn.Softplus)
    beta, threshold = module.beta, module.threshold
    if threshold < 20:
        raise call.unsupported("a threshold at which it is not smooth")

    def exact(z: Tensor) -> Tensor:
        return torch.logaddexp(torch.zeros_like(z), beta * z) / beta

    # Beyond the threshold PyTorch gives z, which is a little less, with the slope 1.
    below = math.log1p(math.exp(-threshold))
    return Smooth(exact, lambda z: torch.sigmoid(beta * z), (), -math.inf, 1.0, below / beta, below)
