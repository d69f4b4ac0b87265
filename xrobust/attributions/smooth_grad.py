"""SmoothGrad."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.errors import at_least
from xrobust.randomness import Generator, SampleStreams, normal_like


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Attribution):
    """a = (1/n) Σ_k ∇ₓ s(f(x + σ·ξ_k)), ξ_k ~ N(0, I) (Smilkov et al. 2017).

    Args:
        sigma: σ ≥ 0, the standard deviation of the noise, relative to the pixel range [0, 1].
        samples: n ≥ 1, noisy copies of each image.
        seed: of the noise when the call gives no generator.
    """

    sigma: float = 0.15
    samples: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0.0, sigma=self.sigma)
        at_least(type(self).__name__, 1, samples=self.samples)

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        total = torch.zeros_like(x)
        for gradients in self.noisy_gradients(model, x, score, create_graph, generator):
            total = total + gradients.sum(0)
        return total / self.samples

    def noisy_gradients(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Iterator[Tensor]:
        """The gradients at all noisy copies, in parts that fit the batch size: each (S, N, C, H, W)."""
        assert generator is not None
        for part in self.passes(self.samples, len(x)):
            noise = torch.stack([normal_like(x, generator) for _ in range(self.samples)[part]]).to(x.dtype)
            yield self.gradient(model, x + self.sigma * noise, score, create_graph)

    def settings(self) -> Mapping[str, Attribution]:
        """Half and twice the noise."""
        return {
            "half the noise": replace(self, sigma=self.sigma / 2),
            "twice the noise": replace(self, sigma=2 * self.sigma),
        }

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))
