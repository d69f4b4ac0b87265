"""Noise in place of an explanation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.randomness import Generator, SampleStreams, normal_like


@dataclass(frozen=True, kw_only=True)
class RandomMap(Attribution):
    """a ~ N(0, I): a reference that knows neither the model nor the image, the score of which is chance.

    Where the generator's streams belong to the samples, a sample has the same map wherever its image moves.

    Args:
        seed: of the map when the call gives no generator.
    """

    differentiable: ClassVar[bool] = False
    demands: ClassVar[str] = "nothing"

    seed: int = 0

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        assert generator is not None
        return normal_like(x, generator).to(x.dtype)

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))
