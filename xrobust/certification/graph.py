"""The traced graph of a network, and the network with the numbers it has now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Size, Tensor, nn
from torch.autograd.function import once_differentiable

from xrobust.certification.operation import Operation
from xrobust.certification.rules.registry import Builder, Call, Statistics


@dataclass(frozen=True, eq=False)
class Step:
    """One operation in the graph.

    Attributes:
        where: the path of the module it is in.
        inputs: the positions of the nodes that it takes; node 0 is the image, node k the result of step k − 1.
        call: the call with its constants as they are now.
        build: the rule that makes an operation of it.
    """

    where: str
    inputs: tuple[int, ...]
    call: Callable[[Statistics], Call]
    build: Builder


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as a sequence of operations; the last one gives the logits.

    Attributes:
        steps: in an order in which they can be computed.
        shapes: of all nodes without the batch, the image first.
    """

    steps: tuple[Step, ...]
    shapes: tuple[Size, ...]

    def network(self, statistics: Statistics | None = None) -> Network:
        """The operations with the weights as they are now, differentiable with respect to them.

        Args:
            statistics: of batch norms in training mode, as `batch_statistics` records them.
        """
        operations = tuple(step.build(step.call(statistics or {})) for step in self.steps)
        return Network(self, operations)

    @property
    def output(self) -> int:
        """The node of the logits."""
        return len(self.steps)


@dataclass(frozen=True, eq=False)
class Network:
    """A graph with an operation for each step."""

    graph: Graph
    operations: tuple[Operation, ...]

    @property
    def output(self) -> int:
        return self.graph.output

    @property
    def shapes(self) -> tuple[Size, ...]:
        return self.graph.shapes

    def operation(self, node: int) -> Operation:
        """The operation whose result is a node (not the image)."""
        return self.operations[node - 1]

    def inputs(self, node: int) -> tuple[int, ...]:
        """The nodes that it takes."""
        return self.graph.steps[node - 1].inputs

    @cached_property
    def preactivations(self) -> dict[int, tuple[int, ...]]:
        """The nodes that nonlinear operations take, upwards, each with the nodes of those operations."""
        found: dict[int, tuple[int, ...]] = {}
        for node in range(1, self.output + 1):
            for source in () if self.operation(node).affine else self.inputs(node):
                found[source] = (*found.get(source, ()), node)
        return dict(sorted(found.items()))

    @cached_property
    def frontier(self) -> frozenset[int]:
        """The last nodes before nothing but affine operations: those that the logits are an affine function of."""
        found, stack = set(), [self.output]
        while stack:
            node = stack.pop()
            if node and self.operation(node).affine:
                stack += self.inputs(node)
            else:
                found.add(node)
        return frozenset(found)

    def values(self, x: Tensor) -> list[Tensor]:
        """All nodes for images (N, C, H, W), the logits last."""
        values = [x]
        for node in range(1, self.output + 1):
            values.append(self.operation(node).apply(*(values[i] for i in self.inputs(node))))
        return values


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Record the statistics with which batch norms in training mode normalise in the forward pass inside.

    They are differentiable once, and biased as the normalisation itself:

        with batch_statistics(model) as statistics:
            logits = model(x)
        network = graph.network(statistics)  # bounds with the statistics of the clean pass
    """
    recorded: dict[str, tuple[Tensor, Tensor]] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module.training:
                recorded[name] = _Statistics.apply(args[0])

        return record

    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    handles = [m.register_forward_pre_hook(recorder(name)) for name, m in model.named_modules() if isinstance(m, norms)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


class _Statistics(torch.autograd.Function):
    """z (N, C, ...) ↦ mean and variance of each channel: in one pass each way, where `torch.var_mean` takes several."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> tuple[Tensor, Tensor]:
        _, mean, inverse = torch.native_batch_norm(z, None, None, None, None, True, 0.0, 0.0)
        ctx.save_for_backward(z, mean)
        return mean, torch.where(inverse > 0, inverse.pow(-2), 0.0)  # of no variance it makes 0

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        z, mean = ctx.saved_tensors
        of_mean, of_variance = (gradient * (len(mean) / z.numel()) for gradient in gradients)
        channels = (-1, *[1] * (z.dim() - 2))
        constant = (of_mean - 2 * mean * of_variance).view(channels)
        return torch.addcmul(constant, z, (2 * of_variance).view(channels))
