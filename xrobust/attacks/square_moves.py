"""What the Square attack tries: squares of one sign in Linf, bumps in L2 and L1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

from xrobust.randomness import Generator, uniform_like
from xrobust.threat import ThreatModel, per_sample


class Moves(ABC):
    """A start and random changes, all inside the threat model; images are (N, C, H, W)."""

    def __init__(self, threat: ThreatModel):
        self.threat = threat

    @abstractmethod
    def numbers(self, channels: int) -> int:
        """How many uniform numbers a change needs."""

    @abstractmethod
    def start(self, x: Tensor, generator: Generator) -> Tensor:
        """Where the search begins."""

    @abstractmethod
    def propose(self, x: Tensor, best: Tensor, numbers: Tensor, side: int) -> Tensor:
        """A change of the best images with a square of that side; `numbers` are (N, count), in [0, 1)."""


class StripeMoves(Moves):
    """Linf: vertical stripes at first, then squares, each ±ε with one sign for each channel."""

    def numbers(self, channels: int) -> int:
        return 2 + channels

    def start(self, x: Tensor, generator: Generator) -> Tensor:
        return self.threat.project(x + self.threat.radius * _signs(uniform_like(x[:, :, :1], generator)), x)

    def propose(self, x: Tensor, best: Tensor, numbers: Tensor, side: int) -> Tensor:
        square = _inside(*_offsets(numbers[:, :2], side, x), side, x)
        painted = x + self.threat.radius * _signs(numbers[:, 2:, None, None])
        return self.threat.project(torch.lerp(best, painted, square), x)


class BumpMoves(Moves):
    """L2 and L1: a grid of bumps; then a window takes on a bump and the norm of another, emptied one."""

    grid = 5

    def __init__(self, threat: ThreatModel):
        super().__init__(threat)
        self.p = 2 if threat.norm == "l2" else 1

    def numbers(self, channels: int) -> int:
        return 5 + channels

    def start(self, x: Tensor, generator: Generator) -> Tensor:
        n, channels, height, width = x.shape
        side = max(min(height, width) // self.grid, 1)
        rows, columns = height // side, width // side
        numbers = uniform_like(x.new_empty(n, channels + 1, rows, columns), generator).to(x.dtype)
        numbers = numbers.repeat_interleave(side, 2).repeat_interleave(side, 3)
        pattern = bump(side, self.p).to(x)
        upright, lying = (shape.repeat(rows, columns) for shape in (pattern, pattern.T))
        grid = torch.where(numbers[:, :1] < 0.5, upright, lying) * _signs(numbers[:, 1:])
        delta = torch.zeros_like(x)
        top, left = (height - rows * side) // 2, (width - columns * side) // 2
        delta[:, :, top : top + rows * side, left : left + columns * side] = grid
        return self._fill(x, delta)

    def propose(self, x: Tensor, best: Tensor, numbers: Tensor, side: int) -> Tensor:
        channels, height, width = x.shape[1:]
        side = min(max(side, 3) | 1, height, width)  # odd, so that a bump has a middle
        rows, columns = _offsets(numbers[:, :2], side, x)
        window = _inside(rows, columns, side, x)
        emptied = _inside(*_offsets(numbers[:, 2:4], side, x), side, x)
        delta = best - x
        shape = self._placed(rows, columns, numbers[:, 4], bump(side, self.p).to(x)) * window
        fresh = shape * _signs(numbers[:, 5:, None, None])
        inside = delta * window
        fresh = fresh + inside / self._norm(inside).clamp(min=1e-12)
        # What the ball has left, in equal shares, and the norm that the two windows held, for each channel.
        spare = self.threat.radius**self.p - self._length(delta) ** self.p
        held = self._norm(delta * torch.maximum(window, emptied)) ** self.p
        target = (per_sample(spare, x).clamp(min=0) / channels + held) ** (1 / self.p)
        if self.p == 1:
            target = channels * target  # more than fits: the projection keeps the largest
        fresh = fresh / self._norm(fresh).clamp(min=1e-12) * target
        return self._fill(x, torch.lerp(delta - delta * emptied, fresh, window))

    def _fill(self, x: Tensor, delta: Tensor) -> Tensor:
        """δ scaled up to the sphere if it is shorter, projected if it is longer."""
        stretch = (self.threat.radius / self._length(delta).clamp(min=1e-12)).clamp(min=1)
        return self.threat.project(x + per_sample(stretch, x) * delta, x)

    def _length(self, delta: Tensor) -> Tensor:
        """The p-norm of each sample: (N,)."""
        return torch.linalg.vector_norm(delta.flatten(1), self.p, dim=1)

    def _norm(self, delta: Tensor) -> Tensor:
        """The p-norm of each channel: (N, C, 1, 1)."""
        return delta.flatten(2).norm(p=self.p, dim=2)[:, :, None, None]

    @staticmethod
    def _placed(rows: Tensor, columns: Tensor, coin: Tensor, pattern: Tensor) -> Tensor:
        """The pattern, or its transpose where the coin is ≥ ½, with its corner at offset 0: (N, 1, H, W)."""
        last = len(pattern) - 1
        rows, columns = rows.clamp(0, last)[:, :, None], columns.clamp(0, last)[:, None, :]
        lying = (coin >= 0.5).long()[:, None, None]
        return torch.stack([pattern, pattern.T])[lying, rows, columns][:, None]


@lru_cache(maxsize=64)
def bump(side: int, p: int) -> Tensor:
    """A positive mound above a negative one in a square, of unit p-norm: (side, side) in float64.

    A mound is Σ_k (k + 1)^(−4/p) over the squares of radius k ≥ 0 around its middle (Andriushchenko et al.
    2020).
    """
    upper = side // 2
    pattern = torch.cat([_mound(upper, side, p), -_mound(side - upper, side, p)])
    return pattern / pattern.norm(p=p)


def _mound(height: int, width: int, p: int) -> Tensor:
    down, across = ((torch.arange(size) - size // 2).abs() for size in (height, width))
    ring = torch.maximum(down[:, None], across[None, :])
    terms = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** (-4 / p)
    mound = terms.flip(0).cumsum(0).flip(0)[ring]
    return mound / mound.norm(p=p) if height else mound


def _signs(numbers: Tensor) -> Tensor:
    return torch.where(numbers < 0.5, -1.0, 1.0).to(numbers.dtype)


def _offsets(numbers: Tensor, side: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column offsets from the corner of a square placed uniformly: (N, H) and (N, W).

    As in the authors' code, the last place of all is left out; on images with an empty border it would be wasted.
    """
    corners = (numbers * (numbers.new_tensor(x.shape[2:]) - side)).long()
    return tuple(torch.arange(size, device=x.device) - corners[:, i : i + 1] for i, size in enumerate(x.shape[2:]))  # type: ignore[return-value]


def _inside(rows: Tensor, columns: Tensor, side: int, x: Tensor) -> Tensor:
    """1 for the pixels of a square, 0 for the others, given offsets from its corner: (N, 1, H, W) in x's dtype.

    Blending by it (`torch.lerp`, exact at 0 and 1) takes a CPU less time than choosing by a boolean mask.
    """
    row_in, column_in = (((offset >= 0) & (offset < side)).to(x.dtype) for offset in (rows, columns))
    return (row_in[:, :, None] * column_in[:, None, :])[:, None]
