"""Boxes of the preactivations from linear bounds."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.certification.backward import Walk, lower_bound
from xrobust.certification.bounds import Bounds, rounded_outwards
from xrobust.certification.box import Box
from xrobust.certification.operation import ADAPTIVE
from xrobust.certification.specification import marked, units
from xrobust.certification.windows import Windows

CHUNK = 2**22  # numbers in the largest tensor of coefficients


def crown_bounds(bounds: Bounds, *, slope: str = ADAPTIVE, chunk: int = CHUNK) -> Bounds:
    """The bounds of interval arithmetic, tightened by a backward pass for each preactivation (CROWN).

    Layer by layer: the boxes of earlier layers serve the later ones. Only units are bounded for which an operation is
    not exactly linear; the boxes are intersections with those of interval arithmetic.

    Args:
        bounds: of interval arithmetic, for all preactivations.
        slope: the rule for the lower lines of unstable ReLUs.
        chunk: how many numbers a tensor of coefficients may have; more units are bounded in turns.
    """
    network = bounds.network
    for node, users in network.preactivations.items():
        if node == 0:
            continue
        box = bounds.boxes[node]
        loose = torch.stack([network.operation(user).loose(box) for user in users]).any(0)
        if loose.any():
            tightened = tighten(bounds, node, loose.flatten(1), slope=slope, chunk=chunk)
            bounds = forward_again(bounds.replaced({node: tightened}), node)
    return bounds


def tighten(bounds: Bounds, node: int, loose: Tensor, *, slope: str, chunk: int) -> Box:
    """The box of a node, tightened at the units in the mask (N, M), and nowhere else."""
    box, shape = bounds.boxes[node], bounds.network.shapes[node]
    lower, upper = box.lower.flatten(1).clone(), box.upper.flatten(1).clone()
    remaining, count = marked(loose), forms_at_once(bounds, chunk, copies=2)
    while remaining.shape[1]:
        part, remaining = remaining[:, :count], remaining[:, count:]
        walk = Walk(slope)
        if len(shape) == 3:
            forms: Tensor | Windows = Windows.units(part, shape, lower.dtype).both_signs()
        else:
            single = units(part, shape, lower.dtype)
            forms = torch.cat([single, -single], 1)
        found = lower_bound(bounds, forms, node, walk).to(lower.dtype)
        count = max(1, chunk // (2 * bounds.samples * walk.widest))
        # `to` may round upwards by half a unit in the last place, which the guard of the rounding bound covers.
        low, up = found[:, : part.shape[1]], -found[:, part.shape[1] :]
        low, up = torch.maximum(lower.gather(1, part), low), torch.minimum(upper.gather(1, part), up)
        # Rows are filled up with other units. NaN, or crossed by rounding: keep what is known.
        fine = loose.gather(1, part) & (low <= up)
        lower = lower.scatter(1, part, torch.where(fine, low, lower.gather(1, part)))
        upper = upper.scatter(1, part, torch.where(fine, up, upper.gather(1, part)))
    return Box(lower.view_as(box.lower), upper.view_as(box.upper))


def forward_again(bounds: Bounds, node: int) -> Bounds:
    """Intervals of the nodes after a tightened one, intersected with what is known."""
    network = bounds.network
    changed = {node}
    boxes = dict(bounds.boxes)
    for later in range(node + 1, network.output + 1):
        inputs = network.inputs(later)
        if later in boxes and changed.intersection(inputs):
            fresh = network.operation(later).interval(*(boxes[i] for i in inputs))
            known = boxes[later]
            if bounds.rounding:
                fresh = rounded_outwards(network, later, fresh, bounds.sizes[later])
            boxes[later] = Box(torch.maximum(fresh.lower, known.lower), torch.minimum(fresh.upper, known.upper))
            changed.add(later)
    return Bounds(network, boxes, bounds.sizes)


def forms_at_once(bounds: Bounds, chunk: int, copies: int = 1) -> int:
    """How many forms for each sample keep a tensor of coefficients within `chunk` numbers; at least one."""
    largest = max(shape.numel() for shape in bounds.network.shapes)
    return max(1, chunk // (largest * bounds.samples * copies))
