"""Square attack: random search with squares, without gradients."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack
from xrobust.attacks.losses import loss_of_logits
from xrobust.attacks.square_moves import BumpMoves, Moves, StripeMoves
from xrobust.attacks.standing import PerSample, choose, require_at_least
from xrobust.errors import UserError
from xrobust.frame import logits_of, predictions
from xrobust.randomness import Generator, subset, uniform_like

# The share of the pixels in a square halves after each of these queries of a budget of 10,000.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# Random numbers are drawn for so many queries at once, which spares time with one stream for each sample.
BLOCK = 50


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search over square-shaped changes, kept when the loss rises (Andriushchenko et al. 2020).

    Only the logits are used. Linf: squares of one sign ±ε for each channel, beginning with vertical stripes.
    L2 and L1 (Croce & Hein 2021): bumps that take over the norm of another window, beginning with a grid of
    bumps. A sample is left alone once the attack has succeeded on it.

    Args:
        queries: forward passes after the first, ≥ 1.
        p_init: the first share of the pixels in a square, in (0, 1].
        rescale_schedule: halve that share at the same shares of the budget as in one of 10,000 queries;
            otherwise at the same queries.
        loss: a name in `attacks.losses` that needs no reference (the paper: "margin", and "cross_entropy" if
            targeted).
        targeted: y holds the classes to reach; the loss is descended.
    """

    queries: int = 5000
    p_init: float = 0.8
    rescale_schedule: bool = True
    loss: str = "margin"
    targeted: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, queries=1)
        if not 0 < self.p_init <= 1:
            raise UserError(f"Square.p_init must lie in (0, 1], got {self.p_init}")
        loss_of_logits(self.loss, "Square.loss")

    def side(self, query: int, height: int, width: int) -> int:
        """The side of the square at a query: √(p · height · width), where p halves along the schedule."""
        spent = query * 10_000 // self.queries if self.rescale_schedule else query
        share = self.p_init / 2 ** bisect_left(HALVINGS, spent)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    @torch.no_grad()
    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        moves: Moves = StripeMoves(self.threat) if self.threat.norm == "linf" else BumpMoves(self.threat)
        channels, height, width = x.shape[1:]
        result, walk = x.clone(), _Walk(x, y)
        done = self._judge(model, x, y)[1]
        for query in range(self.queries + 1):  # the first is the start
            if done.any():
                result[walk.rows[done]] = walk.best[done]
                walk.keep(~done)
                generator = subset(generator, ~done)
                if not len(walk.rows):
                    return result
            if query % BLOCK == 0:
                block = walk.x.new_empty(len(walk.rows), BLOCK, moves.numbers(channels))
                walk.numbers = uniform_like(block, generator).to(x.dtype)
            if query == 0:
                candidate = moves.start(walk.x, generator)
            else:
                side = self.side(query - 1, height, width)
                candidate = moves.propose(walk.x, walk.best, walk.numbers[:, query % BLOCK], side)
            value, done = self._judge(model, candidate, walk.y)
            better = done | (value > walk.value)
            walk.best = choose(better, candidate, walk.best)
            walk.value = torch.where(better, value, walk.value)
        result[walk.rows] = walk.best
        return result

    def _judge(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The value to raise and whether the attack has succeeded, for each sample."""
        logits = logits_of(model, x)
        value = loss_of_logits(self.loss, "loss")(logits, y, None)
        return -value if self.targeted else value, (predictions(logits) == y) == self.targeted


class _Walk(PerSample):
    def __init__(self, x: Tensor, y: Tensor):
        self.rows = torch.arange(len(x), device=x.device)
        self.x, self.y, self.best = x, y, x
        self.value = x.new_full((len(x),), -torch.inf)
        self.numbers = x.new_empty(len(x), 0)
