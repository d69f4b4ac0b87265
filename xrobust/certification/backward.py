"""Linear bounds, backwards: CROWN and everything that is made of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from xrobust.certification.bounds import Bounds, rounding_unit
from xrobust.certification.operation import ADAPTIVE, Slope


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
    """

    slope: str = ADAPTIVE
    slopes: Mapping[int, Tensor] = field(default_factory=dict)
    additions: Mapping[int, Tensor] = field(default_factory=dict)
    stop: Collection[int] = ()
    coefficients: dict[int, Tensor | None] = field(default_factory=dict)

    def slope_of(self, node: int) -> Slope:
        return self.slopes.get(node, self.slope)


def lower_bound(bounds: Bounds, a: Tensor, node: int | None = None, walk: Walk | None = None) -> Tensor:
    """Lower bounds of S linear forms ⟨a, value of a node⟩ for each sample, over its box of images.

    A walk back from the node replaces each operation by a linear lower bound of the form (Zhang et al. 2018, CROWN) and
    ends in the image's box, where the minimum of a linear form is ⟨a, centre⟩ − ⟨|a|, radius⟩. The boxes of
    preactivations must be in `bounds`. Differentiable with respect to weights, boxes, slopes and additions.

    Args:
        bounds: of N samples.
        a: coefficients (N, S, *shape of the node); N may be 1.
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
    if form is None:
        form = total.new_zeros(*total.shape, *bounds.network.shapes[0])
    return Form(form, total)


def interval_lower_bound(bounds: Bounds, a: Tensor) -> Tensor:
    """Lower bounds of linear forms of the logits from the boxes before the last affine operations.

    The forms are folded into those operations: the bound of a difference, not a difference of bounds.
    """
    return lower_bound(bounds, a, walk=Walk(stop=bounds.network.frontier))


def _walked(bounds: Bounds, a: Tensor, node: int | None, walk: Walk) -> tuple[Tensor | None, Tensor]:
    """The coefficients of the image (none if the walk ended before it) and the constant."""
    network = bounds.network
    start = network.output if node is None else node
    if a.shape[0] != bounds.samples:
        a = a.expand(bounds.samples, *a.shape[1:])
    total = a.new_zeros(a.shape[:2], dtype=torch.float64 if bounds.rounding else a.dtype)
    open_nodes: dict[int, Tensor] = {start: a}
    for here in range(start, 0, -1):
        form = open_nodes.pop(here, None)
        if form is None:
            continue
        if here in walk.additions:
            form = form + walk.additions[here]
        if here in walk.coefficients:
            walk.coefficients[here] = form
        if here in walk.stop:
            total = total + _in_box(bounds, here, form)
            continue
        operation = network.operation(here)
        boxes = tuple(bounds.boxes[i] for i in network.inputs(here)) if not operation.affine else ()
        pulled = operation.pull(form, boxes, walk.slope_of(here))
        for coefficients, values in pulled.constants:
            total = total + dot(coefficients, values, total.dtype)
        if bounds.rounding:
            unit = rounding_unit(network, here, form.dtype)
            total = total - unit * dot(form.abs(), bounds.sizes[here].unsqueeze(1), total.dtype)
        for source, coefficients in zip(network.inputs(here), pulled.inputs, strict=True):
            known = open_nodes.get(source)
            open_nodes[source] = coefficients if known is None else known + coefficients
    return open_nodes.get(0), total


def _in_box(bounds: Bounds, node: int, form: Tensor) -> Tensor:
    """The minimum of a form over the box of a node."""
    box, dtype = bounds.boxes[node], torch.float64 if bounds.rounding else form.dtype
    size = form.abs()
    least = dot(form, box.centre.unsqueeze(1), dtype) - dot(size, box.radius.unsqueeze(1), dtype)
    if bounds.rounding:
        unit = rounding_unit(bounds.network, 0, form.dtype)
        least = least - unit * dot(size, box.size.unsqueeze(1), dtype)
    return least


def dot(a: Tensor, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ a · values over everything but the first two dimensions, added up in a precision: (N, S, ...) → (N, S).

    `values` broadcasts against a; where it is constant along the last dimensions, a is summed there first.
    """
    while values.dim() and values.shape[-1] == 1 and a.dim() > 2:
        a, values = a.sum(-1, dtype=dtype), values[..., 0]
    if a.dim() == 2:
        return a * values
    return (a * values).flatten(2).sum(2, dtype=dtype)
