"""The sub-domains of branch and bound: which units are said to be active or inactive."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from xrobust.certification.bounds import Bounds
from xrobust.certification.box import Box
from xrobust.certification.graph import Network
from xrobust.certification.optimise import Optimised
from xrobust.certification.rules.relu import LeakyReLU


class Layout:
    """How values for several nodes lie in one vector.

    Attributes:
        sources: the preactivations that can be split: all operations that take them have their only kink at 0.
        users: the operations with slopes to optimise, by their nodes.
        complete: whether splitting makes the network linear in the end.
    """

    def __init__(self, network: Network):
        self.network = network
        users = network.preactivations
        self.sources = [s for s, ops in users.items() if s and all(network.operation(op).splits for op in ops)]
        self.users = [op for ops in users.values() for op in ops if isinstance(network.operation(op), LeakyReLU)]
        self.complete = len(self.sources) == len(users)

    def packed(self, values: Mapping[int, Tensor], nodes: Sequence[int], like: Tensor) -> Tensor:
        """{node: (D, ..., *shape)} → (D, U); nodes that are missing are 0."""
        sizes = [self.network.shapes[node].numel() for node in nodes]
        parts = [
            values[node].reshape(len(like), size) if node in values else like.new_zeros(len(like), size)
            for node, size in zip(nodes, sizes, strict=True)
        ]
        return torch.cat(parts, 1) if parts else like.new_zeros(len(like), 0)

    def unpacked(self, packed: Tensor, nodes: Sequence[int]) -> dict[int, Tensor]:
        """(D, U) → {node: (D, *shape)}."""
        shapes = [self.network.shapes[node] for node in nodes]
        parts = packed.split([shape.numel() for shape in shapes], 1)
        return {node: part.unflatten(1, shape) for node, part, shape in zip(nodes, parts, shapes, strict=True)}


@dataclass(eq=False)
class Domains:
    """D sub-domains, each of one form of one sample.

    Attributes:
        row: of the sample, (D,).
        form: which difference of logits, (D,).
        signs: 1 (≥ 0), −1 (≤ 0) or 0 for each unit that can be split, (D, U) int8.
        lower: lower bound of the form in the domain, (D,) float64.
        slopes, multipliers: that gave it, (D, U) float32.
        unit: the next to split, (D,); −1 where there is none.
        corner: where the linear bound is least: images (D, C, H, W), candidates for counter-examples.
    """

    row: Tensor
    form: Tensor
    signs: Tensor
    lower: Tensor
    slopes: Tensor
    multipliers: Tensor
    unit: Tensor
    corner: Tensor

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: Tensor) -> Domains:
        """Some of them."""
        return Domains(*(value[index] for value in vars(self).values()))

    @staticmethod
    def joined(parts: Sequence[Domains]) -> Domains:
        return Domains(*(torch.cat(values) for values in zip(*(vars(part).values() for part in parts), strict=True)))

    def split(self) -> Domains:
        """Both halves of each domain."""
        halves = []
        for sign in (1, -1):
            signs = self.signs.scatter(1, self.unit.unsqueeze(1), sign)
            halves.append(Domains(self.row, self.form, signs, *list(vars(self).values())[3:]))
        return Domains.joined(halves)

    def start(self, layout: Layout, dtype: torch.dtype) -> Optimised:
        """Slopes and multipliers to begin with, as `optimised_lower_bound` takes them."""
        slopes = layout.unpacked(self.slopes.to(dtype), layout.users)
        multipliers = layout.unpacked(self.multipliers.to(dtype), layout.sources)
        first, second = ({node: v.unsqueeze(1) for node, v in each.items()} for each in (slopes, multipliers))
        return Optimised(self.lower.unsqueeze(1), first, second)


def restricted(bounds: Bounds, signs: Mapping[int, Tensor]) -> Bounds:
    """The bounds in the domains where units are ≥ 0 or ≤ 0 as the signs say."""
    boxes = {}
    for source, sign in signs.items():
        box = bounds.boxes[source]
        lower = torch.where(sign > 0, box.lower.clamp(min=0), box.lower)
        boxes[source] = Box(lower, torch.where(sign < 0, box.upper.clamp(max=0), box.upper))
    return bounds.replaced(boxes)


class Queue:
    """The open domains of one sample, the one of the lowest bound first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Domains]] = []
        self._order = count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, domain: Domains) -> None:
        heapq.heappush(self._heap, (float(domain.lower[0]), next(self._order), domain))

    def pop(self, most: int) -> list[Domains]:
        return [heapq.heappop(self._heap)[2] for _ in range(min(most, len(self._heap)))]

    @property
    def lowest(self) -> float:
        """The lowest bound; ∞ if none is open."""
        return self._heap[0][0] if self._heap else torch.inf
