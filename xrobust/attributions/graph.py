"""Reading autograd's graph: which operations lie between two tensors, and whether they are linear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

# Operations of autograd's graph, without "Backward" and the variant's number, that are linear in all their inputs
# together (batch norm: with its running statistics), or in one of them while the others are constant. A choice by
# a condition (Where) is not among them, because the graph does not show what the condition depends on.
LINEAR = frozenset(
    (
        "Add",
        "Sub",
        "Neg",
        "Sum",
        "Mean",
        "AvgPool2D",
        "AdaptiveAvgPool2D",
        "UpsampleBilinear2D",
        "UpsampleNearest2D",
        "NativeBatchNorm",
        "CudnnBatchNorm",
        "ConstantPadNd",
        "ReflectionPad2D",
        "ReplicationPad2D",
        "Cat",
        "Stack",
        "Split",
        "SplitWithSizes",
        "Unbind",
        "Select",
        "Slice",
        "Gather",
        "Flip",
        "View",
        "UnsafeView",
        "ReshapeAlias",
        "Squeeze",
        "Unsqueeze",
        "Expand",
        "Permute",
        "Transpose",
        "T",
        "PixelShuffle",
        "Clone",
        "Alias",
        "ToCopy",
    )
)
BILINEAR = frozenset(("Mul", "Div", "Mm", "Bmm", "Baddbmm", "Addmm", "Addbmm", "Linear", "Convolution"))

Node = Any  # torch.autograd.graph.Node, which has no public constructor to check against


def operation(node: Node) -> str:
    """The operation's name: "AddmmBackward0" → "Addmm"."""
    return node.name().rstrip("0123456789").removesuffix("Backward")


class GraphReader:
    """Reads the graph of one forward pass while it grows, each node once, inputs before outputs."""

    def __init__(self) -> None:
        self.seen: set[Node] = set()  # holds the nodes, so that none is freed and its identity used again

    def new_nodes(self, output: Tensor) -> Iterator[Node]:
        """The nodes on the way to `output` that were not there at the last call."""
        stack = [] if output.grad_fn is None else [(output.grad_fn, False)]
        while stack:
            node, inputs_done = stack.pop()
            if inputs_done:
                yield node
            elif node not in self.seen:
                self.seen.add(node)
                stack.append((node, True))
                stack += [(parent, False) for parent, _ in node.next_functions if parent is not None]


class LinearReader(GraphReader):
    """Reads whether tensors depend on a source in a linear (or affine) way."""

    def __init__(self) -> None:
        super().__init__()
        self.dependent: set[Node] = set()

    def follow(self, source: Tensor) -> None:
        """Regard a leaf that requires gradients as a source."""
        node = source.view_as(source).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        self.seen.add(node)
        self.dependent.add(node)

    def nonlinear(self, output: Tensor) -> str | None:
        """The first new operation on the way from a source to `output` that is not linear, or None."""
        for node in self.new_nodes(output):
            depends = [parent in self.dependent for parent, _ in node.next_functions]
            if any(depends):
                self.dependent.add(node)
                name = operation(node)
                # A product with a constant and a quotient by one are linear; a product of two dependent factors is not.
                bilinear = name in BILINEAR and sum(depends) == 1 and not (name == "Div" and depends[1])
                batch_statistics = getattr(node, "_saved_training", False)
                if batch_statistics or not (name in LINEAR or bilinear):
                    return name
        return None
