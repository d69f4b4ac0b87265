"""Intervals of all nodes of a network, forwards: interval bound propagation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xrobust.certification.box import Box
from xrobust.certification.graph import Network

GUARD = 64  # roundings besides the sum of products: copies, sums of branches, corners from centres, pairwise sums


@dataclass(frozen=True, eq=False)
class Bounds:
    """What is known of the values of a network over a box of images.

    Attributes:
        network: the network.
        boxes: of the nodes (0 is the image), as far as they were asked for.
        sizes: for each node, a bound of the terms that rounding errors are proportional to, (N, *shape); empty if
            rounding is not accounted for.
    """

    network: Network
    boxes: dict[int, Box]
    sizes: dict[int, Tensor]

    @property
    def samples(self) -> int:
        """N."""
        return len(self.boxes[0].lower)

    @property
    def rounding(self) -> bool:
        """Whether bounds are moved outwards by all that rounding may have changed."""
        return bool(self.sizes)

    def rows(self, index: Tensor) -> Bounds:
        """The bounds of some samples."""
        boxes = {node: box.rows(index) for node, box in self.boxes.items()}
        return Bounds(self.network, boxes, {node: size[index] for node, size in self.sizes.items()})

    def replaced(self, boxes: dict[int, Box]) -> Bounds:
        """The same with other boxes for some nodes."""
        return Bounds(self.network, {**self.boxes, **boxes}, self.sizes)


def rounding_unit(network: Network, node: int, dtype: torch.dtype) -> float:
    """What a node's bounds may be off by rounding, for each unit of its size: 2u · (terms + guard).

    Twice the first-order bound n·u of a sum of n products in any order (Higham 2002, section 3.1).
    """
    terms = network.operation(node).terms if node else 0
    return torch.finfo(dtype).eps * (terms + GUARD)


def rounded_outwards(network: Network, node: int, box: Box, size: Tensor) -> Box:
    """A node's box with what rounding may have changed in computing it from those of its inputs."""
    if not network.operation(node).terms:
        return box
    return box.widened(rounding_unit(network, node, size.dtype) * size)


def interval_bounds(network: Network, box: Box, *, rounding: bool = False, all_nodes: bool = True) -> Bounds:
    """Interval bound propagation (Gowal et al. 2018): every value of every node for images in the box lies in its box.

    Args:
        network: the network.
        box: of images (N, C, H, W).
        rounding: widen each box by what rounding may have changed in computing it.
        all_nodes: also the nodes after the last nonlinear operation, for which linear forms are tighter.
    """
    bounds = Bounds(network, {0: box}, {0: box.size} if rounding else {})
    needed = _needed(network, network.frontier if not all_nodes else {network.output})
    for node in range(1, network.output + 1):
        if node not in needed and not rounding:
            continue
        operation, inputs = network.operation(node), network.inputs(node)
        given = [bounds.boxes[i] for i in inputs]
        boxed = operation.interval(*given)
        if rounding:
            size = operation.magnitude(*(each.size for each in given))
            bounds.sizes[node] = size
            boxed = rounded_outwards(network, node, boxed, size)
        bounds.boxes[node] = boxed
    return bounds


def _needed(network: Network, nodes: set[int] | frozenset[int]) -> set[int]:
    """The nodes, and all that they are computed from."""
    found, stack = set(), list(nodes)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += network.inputs(node) if node else ()
    return found
