"""Linear bounds, backwards: CROWN and everything that is made of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xrobust.certification.bounds import Bounds, rounding_unit
from xrobust.certification.operation import ADAPTIVE, Pulled, PulledWindows, Slope
from xrobust.certification.windows import Windows


@dataclass(eq=False)
class Form:
    """Linear forms of the image that bound forms of the network's values from below: ⟨coefficients, x⟩ + constant.

    Attributes:
        coefficients: (N, S, C, H, W).
        constant: (N, S).
    """

    coefficients: Tensor
    constant: Tensor


@dataclass(eq=False)
class Walk:
    """What a walk back through a network may be told, and what it may leave behind.

    Attributes:
        slope: the rule for the lower lines of unstable ReLUs.
        slopes: optimised slopes for some operations, by their nodes: (N, S, *shape).
        additions: for some nodes, what is added to the coefficients when the walk reaches them (N, S or 1, *shape):
            the multipliers of constraints on their values.
        stop: nodes at which the walk ends in the node's box instead of going on.
        coefficients: filled with the coefficients at these nodes, if they are keys.
        widest: filled with the largest number of coefficients that a form had on the way.
    """

    slope: str = ADAPTIVE
    slopes: Mapping[int, Tensor] = field(default_factory=dict)
    additions: Mapping[int, Tensor] = field(default_factory=dict)
    stop: Collection[int] = ()
    coefficients: dict[int, Tensor | None] = field(default_factory=dict)
    widest: int = 0

    def slope_of(self, node: int) -> Slope:
        return self.slopes.get(node, self.slope)


def lower_bound(bounds: Bounds, a: Tensor | Windows, node: int | None = None, walk: Walk | None = None) -> Tensor:
    """Lower bounds of S linear forms ⟨a, value of a node⟩ for each sample, over its box of images.

    A walk back from the node replaces each operation by a linear lower bound of the form (Zhang et al. 2018, CROWN) and
    ends in the image's box, where the minimum of a linear form is ⟨a, centre⟩ − ⟨|a|, radius⟩. The boxes of
    preactivations must be in `bounds`. Differentiable with respect to weights, boxes, slopes and additions.

    Args:
        bounds: of N samples.
        a: coefficients (N, S, *shape of the node); N may be 1. Or windows of them, which are faster where they stay
            small: up to a layer that is no convolution.
        node: by default the logits.
        walk: slopes and constraints.

    Returns:
        (N, S); with rounding in the bounds, less all that rounding may have added.
    """
    form, total = _walked(bounds, a, node, walk or Walk())
    return total if form is None else total + _in_box(bounds, 0, form)


def linear_form(bounds: Bounds, a: Tensor, node: int | None = None, walk: Walk | None = None) -> Form:
    """The form of the image at the end of such a walk, which bounds ⟨a, value⟩ from below everywhere in the box."""
    form, total = _walked(bounds, a, node, walk or Walk())
    if isinstance(form, Windows):
        form = form.dense()
    if form is None:
        form = total.new_zeros(*total.shape, *bounds.network.shapes[0])
    return Form(form, total)


def interval_lower_bound(bounds: Bounds, a: Tensor) -> Tensor:
    """Lower bounds of linear forms of the logits from the boxes before the last affine operations.

    The forms are folded into those operations: the bound of a difference, not a difference of bounds.
    """
    return lower_bound(bounds, a, walk=Walk(stop=bounds.network.frontier))


def _walked(
    bounds: Bounds, a: Tensor | Windows, node: int | None, walk: Walk
) -> tuple[Tensor | Windows | None, Tensor]:
    """The coefficients of the image (none if the walk ended before it) and the constant."""
    network = bounds.network
    start = network.output if node is None else node
    if isinstance(a, Tensor) and a.shape[0] != bounds.samples:
        a = a.expand(bounds.samples, *a.shape[1:])
    numbers = _numbers(a)
    total = numbers.new_zeros(numbers.shape[:2], dtype=torch.float64 if bounds.rounding else numbers.dtype)
    open_nodes: dict[int, Tensor | Windows] = {start: a}
    for here in range(start, 0, -1):
        form = open_nodes.pop(here, None)
        if form is None:
            continue
        if here in walk.additions:
            form = _dense(form) + walk.additions[here]
        if here in walk.coefficients:
            form = walk.coefficients[here] = _dense(form)
        if here in walk.stop:
            total = total + _in_box(bounds, here, form)
            continue
        operation, slope = network.operation(here), walk.slope_of(here)
        boxes = tuple(bounds.boxes[i] for i in network.inputs(here)) if not operation.affine else ()
        pulled: Pulled | PulledWindows | None = None
        if isinstance(form, Windows) and isinstance(slope, str):
            pulled = operation.pull_windows(form, boxes, slope)
        if pulled is None:
            form = _dense(form)
            pulled = operation.pull(form, boxes, slope)
        inputs: tuple[Tensor | Windows, ...] = pulled.inputs
        walk.widest = max(walk.widest, *(_numbers(each).shape[2:].numel() for each in (form, *inputs)))
        for coefficients, values in pulled.constants:
            total = total + dot(coefficients, values, total.dtype)
        if bounds.rounding:
            numbers = _numbers(form)
            unit = rounding_unit(network, here, numbers.dtype)
            total = total - unit * dot(numbers.abs(), _beside(form, bounds.sizes[here]), total.dtype)
        for source, one in zip(network.inputs(here), inputs, strict=True):
            known = open_nodes.get(source)
            open_nodes[source] = one if known is None else _dense(known) + _dense(one)
    return open_nodes.get(0), total


def _in_box(bounds: Bounds, node: int, form: Tensor | Windows) -> Tensor:
    """The minimum of a form over the box of a node."""
    box, numbers = bounds.boxes[node], _numbers(form)
    size, dtype = numbers.abs(), torch.float64 if bounds.rounding else numbers.dtype
    least = dot(numbers, _beside(form, box.centre), dtype) - dot(size, _beside(form, box.radius), dtype)
    if bounds.rounding:
        unit = rounding_unit(bounds.network, 0, numbers.dtype)
        least = least - unit * dot(size, _beside(form, box.size), dtype)
    return least


def _dense(form: Tensor | Windows) -> Tensor:
    return form.dense() if isinstance(form, Windows) else form


def _numbers(form: Tensor | Windows) -> Tensor:
    """The coefficients, as `_beside` lays out what they are multiplied with."""
    return form.coefficients if isinstance(form, Windows) else form


def _beside(form: Tensor | Windows, values: Tensor) -> Tensor:
    """Values of the node (N, *shape), broadcast against the coefficients."""
    return form.of(values) if isinstance(form, Windows) else values.unsqueeze(1)


def dot(a: Tensor, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ a · values over everything but the first two dimensions, added up in a precision: (N, S, ...) → (N, S).

    `values` broadcasts against a; where it is constant along the last dimensions, a is summed there first.
    """
    while values.dim() and values.shape[-1] == 1 and a.dim() > 2:
        a, values = a.sum(-1, dtype=dtype), values[..., 0]
    if a.dim() == 2:
        return a * values
    return (a * values).flatten(2).sum(2, dtype=dtype)
