"""Random draws that never touch the global generator.

Training draws from one `torch.Generator` for each process. Evaluation draws from `SampleStreams`, one stream for
each sample, so that a result depends on the sample and the seed alone: not on the batch size, the order of the
batches, the device or the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

_MASK = (1 << 63) - 1


def mix(*parts: int) -> int:
    """A well-spread seed in [0, 2^63) from a sequence of integers (the finaliser of SplitMix64, chained)."""
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state ^ (part & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state & _MASK


class SampleStreams:
    """One independent random stream for each sample of a batch, keyed by (seed, sample index).

    Draws happen on the CPU and move to the device that asks, so that every device sees the same numbers.
    """

    def __init__(self, seed: int, indices: Iterable[int]):
        self.generators = [torch.Generator().manual_seed(mix(seed, int(i))) for i in indices]

    def __len__(self) -> int:
        return len(self.generators)

    def __getitem__(self, chosen: Tensor | slice) -> SampleStreams:
        """The streams of a subset of the samples (a mask, positions or a slice); they go on where they stand."""
        positions = torch.arange(len(self))[chosen.cpu() if isinstance(chosen, Tensor) else chosen]
        subset = SampleStreams.__new__(SampleStreams)
        subset.generators = [self.generators[i] for i in positions.tolist()]
        return subset


Generator = torch.Generator | SampleStreams


def subset(generator: Generator, chosen: Tensor | slice) -> Generator:
    """The randomness of some samples of a batch: their streams, or the one generator that all samples share."""
    return generator if isinstance(generator, torch.Generator) else generator[chosen]


def default_generator(device: torch.device) -> torch.Generator:
    """What a caller that gives no generator gets: a fresh one with seed 0, so that equal calls give equal results."""
    return torch.Generator(device).manual_seed(0)


def _draw(like: Tensor, generator: Generator, kernel: Callable[..., Tensor]) -> Tensor:
    if isinstance(generator, torch.Generator):
        drawn = kernel(like.shape, generator=generator, device=generator.device, dtype=torch.float32)
    else:
        if len(generator) != len(like):
            raise ValueError(f"{len(generator)} random streams for a batch of {len(like)} samples")
        drawn = torch.empty(like.shape, dtype=torch.float32)
        for row, stream in zip(drawn, generator.generators, strict=True):
            row.copy_(kernel(row.shape, generator=stream, dtype=torch.float32))
    return drawn.to(like.device)


def uniform_like(like: Tensor, generator: Generator) -> Tensor:
    """U(0, 1) in float32, of the shape and on the device of `like`."""
    return _draw(like, generator, torch.rand)


def normal_like(like: Tensor, generator: Generator) -> Tensor:
    """N(0, 1) in float32, of the shape and on the device of `like`."""
    return _draw(like, generator, torch.randn)
