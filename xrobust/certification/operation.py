"""What bound propagation must know of an operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from xrobust.certification.box import Box
from xrobust.certification.windows import Windows

# How the lower line of an unstable ReLU is chosen: a rule by name, or optimised slopes of shape (N, S, ...).
Slope = str | Tensor
ADAPTIVE, PARALLEL = "adaptive", "parallel"
SLOPES = (ADAPTIVE, PARALLEL)
# A line slope · z + offset for each value, (N, *shape) or with the forms' dimension; no offset: 0.
Line = tuple[Tensor, Tensor | None]


class Pulled(NamedTuple):
    """A linear form of an operation's output, bounded from below by one of its inputs.

    Attributes:
        inputs: the coefficients of each input, (N, S, *input shape).
        constants: pairs of coefficients (N, S, *shape) and values (broadcast against them), whose products are summed.
    """

    inputs: tuple[Tensor, ...]
    constants: tuple[tuple[Tensor, Tensor], ...] = ()


class PulledWindows(NamedTuple):
    """The same for forms in windows; constants are laid out as their coefficients."""

    inputs: tuple[Windows, ...]
    constants: tuple[tuple[Tensor, Tensor], ...] = ()


@dataclass(frozen=True, eq=False)
class Operation(ABC):
    """One operation of a network with the numbers it has now: intervals through it, linear bounds back through it.

    Values are (N, *shape); coefficients of linear forms are (N, S, *shape), S forms for each sample.
    """

    affine: ClassVar[bool] = False
    splits: ClassVar[bool] = False  # piecewise linear with one kink at 0, which branch and bound can split

    @abstractmethod
    def apply(self, *inputs: Tensor) -> Tensor:
        """The operation itself."""

    @abstractmethod
    def interval(self, *boxes: Box) -> Box:
        """The smallest box (up to rounding) that holds every output for inputs in the boxes."""

    @abstractmethod
    def pull(self, a: Tensor, boxes: tuple[Box, ...], slope: Slope) -> Pulled:
        """Linear forms g of the inputs with g(inputs) ≤ ⟨a, output⟩ for all inputs in the boxes."""

    def pull_windows(self, a: Windows, boxes: tuple[Box, ...], slope: Slope) -> PulledWindows | None:
        """`pull` for forms of few neighbouring values each; None if that has no rule here, and they must be dense."""
        return None

    @abstractmethod
    def magnitude(self, *sizes: Tensor) -> Tensor:
        """A bound of the sum of the absolute values that are added up in any bound of an output.

        `sizes` bound the absolute values of the inputs. Rounding errors are at most `terms` units of it in the last
        place.
        """

    def gradient(self, g: Box, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        """For each input, a box that holds ∂⟨γ, output⟩/∂input for every γ in the box g and all inputs in their boxes.

        At a kink it holds what every choice of a derivative between those of both sides gives.
        """
        raise NotImplementedError

    @property
    def terms(self) -> int:
        """How many products are summed for one output, or for one coefficient on the way back; 0 if none."""
        return 0

    def loose(self, box: Box) -> Tensor:
        """Where the linear bounds are not exact for inputs in the box: a mask of the input's shape."""
        return torch.zeros_like(box.lower, dtype=torch.bool)


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """linear(inputs) + bias."""

    affine: ClassVar[bool] = True

    @abstractmethod
    def linear(self, *inputs: Tensor) -> Tensor: ...

    @property
    @abstractmethod
    def unsigned(self) -> Affine:
        """The operation with the absolute values of its weights, and no bias."""

    def absolute(self, *inputs: Tensor) -> Tensor:
        """`unsigned` of inputs."""
        return self.unsigned.linear(*inputs)

    @abstractmethod
    def transpose(self, a: Tensor) -> tuple[Tensor, ...]:
        """The adjoint of `linear` for each input: (M, *shape) → (M, *input shape)."""

    @property
    def offset(self) -> Tensor | None:
        """The bias, broadcast against (*shape)."""
        return None

    def apply(self, *inputs: Tensor) -> Tensor:
        z = self.linear(*inputs)
        return z if self.offset is None else z + self.offset

    def interval(self, *boxes: Box) -> Box:
        return Box.around(self.apply(*(box.centre for box in boxes)), self.absolute(*(box.radius for box in boxes)))

    def gradient(self, g: Box, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        centres, radii = self.transpose(g.centre), self.unsigned.transpose(g.radius)
        return tuple(Box.around(*each) for each in zip(centres, radii, strict=True))

    def pull(self, a: Tensor, boxes: tuple[Box, ...], slope: Slope) -> Pulled:
        inputs = tuple(each.unflatten(0, a.shape[:2]) for each in self.transpose(a.flatten(0, 1)))
        return Pulled(inputs, () if self.offset is None else ((a, self.offset),))

    def magnitude(self, *sizes: Tensor) -> Tensor:
        size = self.absolute(*sizes)
        return size if self.offset is None else size + self.offset.abs()


@dataclass(frozen=True, eq=False)
class Pointwise(Operation):
    """A function of one variable, value by value, between two lines."""

    @abstractmethod
    def lines(self, box: Box, slope: Slope) -> tuple[Line, Line]:
        """A line below the function over the box, and one above it."""

    def pull(self, a: Tensor, boxes: tuple[Box, ...], slope: Slope) -> Pulled:
        pulled, constants = _along_lines(a, self.lines(boxes[0], slope), lambda line: _for_forms(line, a))
        return Pulled((pulled,), constants)

    def pull_windows(self, a: Windows, boxes: tuple[Box, ...], slope: Slope) -> PulledWindows | None:
        pulled, constants = _along_lines(a.coefficients, self.lines(boxes[0], slope), a.of)
        return PulledWindows((a.replaced(pulled),), constants)


def _along_lines(
    a: Tensor, lines: tuple[Line, Line], laid: Callable[[Tensor], Tensor]
) -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...]]:
    """The coefficients of z in forms ⟨a, f(z)⟩ between two lines `laid` out as a, and the constants as in `Pulled`.

    A positive coefficient takes the lower line, a negative one the upper line. One of the two products is 0 and the
    other exact; on CPUs both together take a fifth of the time of `torch.where`.
    """
    above = a.relu()
    below = a - above
    (lower, _), (upper, _) = lines
    parts = zip((above, below), lines, strict=True)
    constants = tuple((part, laid(offset)) for part, (_, offset) in parts if offset is not None)
    return torch.addcmul(above * laid(lower), below, laid(upper)), constants


def through_slopes(g: Box, slopes: Box) -> Box:
    """The chain rule for an elementwise operation: all products of a value in one box and one in the other."""
    corners = torch.stack([slope * side for slope in (slopes.lower, slopes.upper) for side in (g.lower, g.upper)])
    return Box(corners.amin(0), corners.amax(0))


def _for_forms(line: Tensor, a: Tensor) -> Tensor:
    """(N, *shape) → (N, 1, *shape); what has the forms' dimension already stays."""
    return line if line.dim() == a.dim() else line.unsqueeze(1)
