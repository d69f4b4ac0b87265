"""Distributions of interest: the points at which an influence is averaged (Leino et al. 2018)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Score, input_gradient
from xrobust.attributions.baselines import AnyBaseline, Constant, baseline_images
from xrobust.attributions.integrated_gradients import RULES
from xrobust.errors import at_least, one_of
from xrobust.randomness import Generator, normal_like


class Distribution(ABC):
    """Points with weights that stand for a distribution around each image."""

    @abstractmethod
    def points(self, x: Tensor, generator: Generator) -> Iterator[tuple[Tensor, float]]:
        """(N, C, H, W) → pairs of points, of x's shape, and their weight; the weights sum to 1."""


@dataclass(frozen=True, kw_only=True)
class Point(Distribution):
    """The image itself."""

    def points(self, x: Tensor, generator: Generator) -> Iterator[tuple[Tensor, float]]:
        yield x, 1.0


@dataclass(frozen=True, kw_only=True)
class Line(Distribution):
    """Uniform on the straight line from a baseline to the image, by quadrature.

    Args:
        steps: points, ≥ 1.
        rule: the quadrature, "gauss_legendre" or "riemann_midpoint".
        baseline: images → x', such as those in `attributions.baselines`; one that draws is drawn from once.
    """

    steps: int = 32
    rule: str = "gauss_legendre"
    baseline: AnyBaseline = field(default_factory=Constant)

    def __post_init__(self) -> None:
        at_least("Line", 1, steps=self.steps)
        if self.rule not in RULES:
            raise one_of("Line.rule", self.rule, list(RULES))

    def points(self, x: Tensor, generator: Generator) -> Iterator[tuple[Tensor, float]]:
        start = baseline_images(self.baseline, x, generator)
        nodes, weights = RULES[self.rule](self.steps)
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            yield start + node * (x - start), weight


@dataclass(frozen=True, kw_only=True)
class Gaussian(Distribution):
    """N(x, σ²I), by sampling.

    Args:
        sigma: σ ≥ 0, the standard deviation, relative to the pixel range [0, 1].
        samples: n ≥ 1.
    """

    sigma: float = 0.15
    samples: int = 50

    def __post_init__(self) -> None:
        at_least("Gaussian", 0.0, sigma=self.sigma)
        at_least("Gaussian", 1, samples=self.samples)

    def points(self, x: Tensor, generator: Generator) -> Iterator[tuple[Tensor, float]]:
        for _ in range(self.samples):
            yield x + self.sigma * normal_like(x, generator).to(x.dtype), 1 / self.samples


def mean_gradient(
    model: nn.Module,
    points: Iterable[tuple[Tensor, float]],
    score: Score,
    *,
    count: int,
    batch_size: int,
    create_graph: bool = False,
) -> Tensor:
    """Σ_k w_k ∇s(f(z_k)) over batches z_k of `count` images with weights w_k.

    At most `batch_size` images go through the model at once; so many are drawn from `points` at a time.
    """
    total, points = torch.zeros(()), iter(points)
    while part := list(islice(points, max(1, batch_size // max(1, count)))):
        versions = torch.stack([z for z, _ in part])
        gradients = input_gradient(model, versions, score, batch_size=batch_size, create_graph=create_graph)
        total = total + sum(w * gradient for (_, w), gradient in zip(part, gradients, strict=True))
    return total
