"""DeepLIFT with the rescale rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.baselines import AnyBaseline, Constant, baseline_images
from xrobust.attributions.graph import LinearReader
from xrobust.attributions.parts import Weigh, in_parts
from xrobust.attributions.replay import ELEMENTWISE, MAX_POOLING, Call, recorded, replayed, taken, winners
from xrobust.randomness import Generator, SampleStreams


@dataclass(frozen=True, kw_only=True)
class DeepLift(Attribution):
    """a = (x − x') ⊙ m: the gradient with Δy/Δh in place of each activation's derivative (Shrikumar et al. 2017).

    Δ is the difference between the image x and the baseline x'. Complete: Σ_i a_i = f(x) − f(x') for a logit f; of
    another score, the gradient at x weighs the logits. Max pooling passes Δy to the place of its maximum, that of x
    where y rises and that of x' where it falls. Three forward passes and one backward.

    Args:
        baseline: images → x', such as those in `attributions.baselines`.
        seed: of a baseline that draws, when the call gives no generator.

    Raises (when called):
        UserError: for a network with other than elementwise activations (as modules), max pooling and operations
            that are linear in the image: attention, layer norm and gates have no rule.
    """

    demands: ClassVar[str] = "a gradient, each activation as a module, and no attention or gates"

    baseline: AnyBaseline = field(default_factory=Constant)
    seed: int = 0

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        baseline = baseline_images(self.baseline, x, generator)

        def explain(part: Tensor, rows: slice, weigh: Weigh) -> Tensor:
            start = baseline[rows]
            with torch.set_grad_enabled(create_graph):
                _, before = recorded(model, start)
                logits, after = recorded(model, part)
            weights = weigh(logits)

            def substitute(number: int, signal: Tensor) -> Tensor | None:
                if isinstance(after[number].module, ELEMENTWISE):
                    return signal * _slope(before[number], after[number], create_graph)
                if isinstance(after[number].module, MAX_POOLING):
                    return _pooled(before[number], after[number], signal)
                return None

            reader, signal = LinearReader(), part.detach().requires_grad_()
            reader.follow(signal)
            output = replayed(model, signal, after, substitute, reader, type(self).__name__)
            (multipliers,) = torch.autograd.grad(output, signal, weights, create_graph=create_graph)
            return (part - start) * multipliers

        return in_parts(explain, model, x, score, batch_size=self.batch_size, create_graph=create_graph)

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))


def _slope(before: Call, after: Call, create_graph: bool) -> Tensor:
    """Δy/Δh; where Δh is so small that rounding would decide, the derivative half-way, which is as near as that."""
    change = after.input - before.input
    size = torch.stack([t.abs() for t in (after.input, before.input, after.output, before.output)]).amax(0)
    near = change.abs() <= torch.finfo(change.dtype).eps ** 0.5 * size
    middle = before.input + change / 2
    h = middle if middle.requires_grad else middle.requires_grad_()
    (derivative,) = torch.autograd.grad(after.module.forward(h).sum(), h, create_graph=create_graph)
    return derivative.where(near, (after.output - before.output) / change.where(~near, 1))


def _pooled(before: Call, after: Call, signal: Tensor) -> Tensor:
    """Max pooling as a weighted sum of the entry that is largest in x and the one that is largest in x'."""
    change, rise = after.input - before.input, after.output - before.output
    own, other = winners(after.module, after.input), winners(before.module, before.input)
    moved, other_moved = taken(change, own), taken(change, other)
    still = (rise == 0) & (moved == 0)  # the derivative is the limit
    up = rise.relu() / moved.where(moved != 0, 1) + still
    down = (-rise).relu() / other_moved.where(other_moved != 0, 1)
    return taken(signal, own) * up - taken(signal, other) * down
