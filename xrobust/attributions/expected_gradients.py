"""Expected gradients."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.baselines import AnyBaseline, Constant, Mixture, UniformImages, baseline_images
from xrobust.errors import at_least
from xrobust.randomness import Generator, SampleStreams, uniform_like
from xrobust.threat import per_sample


def black_or_noise() -> Mixture:
    """References that need no data: black images and images of uniform noise, in equal shares."""
    return Mixture([Constant(0.0), UniformImages()])


@dataclass(frozen=True, kw_only=True)
class ExpectedGradients(Attribution):
    """a = E[(x − x') ⊙ ∇s(f(x' + α(x − x')))], x' ~ references, α ~ U(0, 1) (Erion et al. 2021).

    The mean of integrated gradients over baselines, by Monte Carlo. Complete in expectation:
    E Σ_i a_i = s(f(x)) − E s(f(x')).

    Args:
        references: the distribution of x': `ReferenceImages` for the paper's, which draws from data, or any other
            baseline in `attributions.baselines`.
        samples: n ≥ 1, pairs (x', α) for each image.
        seed: of the draws when the call gives no generator.
    """

    references: AnyBaseline = field(default_factory=black_or_noise)
    samples: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 1, samples=self.samples)

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        assert generator is not None
        total = torch.zeros_like(x)
        for part in self.passes(self.samples, len(x)):
            paths, points = zip(*(self._draw(x, generator) for _ in range(self.samples)[part]), strict=True)
            gradients = self.gradient(model, torch.stack(points), score, create_graph)
            total = total + (torch.stack(paths) * gradients).sum(0)
        return total / self.samples

    def end(self, x: Tensor, generator: Generator) -> Tensor:
        """Where a path from a reference leads to."""
        return x

    def _draw(self, x: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """A path for each image, as the way from its start to its end, and a point on it."""
        start, end = baseline_images(self.references, x, generator), self.end(x, generator)
        alpha = per_sample(uniform_like(x.flatten(1)[:, 0], generator), x).to(x.dtype)
        return end - start, start + alpha * (end - start)

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))
