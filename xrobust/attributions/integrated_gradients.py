"""Integrated gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.baselines import AnyBaseline, Constant, GaussianBlur, ImageMean, baseline_images
from xrobust.errors import at_least, one_of
from xrobust.randomness import Generator, SampleStreams


def gauss_legendre(steps: int) -> tuple[Tensor, Tensor]:
    """Nodes in (0, 1) and weights, exact for polynomials up to degree 2·steps − 1; float64.

    The nodes are the eigenvalues of the Jacobi matrix of the Legendre polynomials (Golub & Welsch 1969).
    """
    k = torch.arange(1, steps, dtype=torch.float64)
    off_diagonal = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return (1 + nodes) / 2, vectors[0].square()


def riemann_midpoint(steps: int) -> tuple[Tensor, Tensor]:
    """The midpoints of equal intervals of [0, 1], with equal weights; float64."""
    ones = torch.ones(steps, dtype=torch.float64)
    return (ones.cumsum(0) - 0.5) / steps, ones / steps


RULES: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    rule.__name__: rule for rule in (gauss_legendre, riemann_midpoint)
}


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(Attribution):
    """a = (x − x') ⊙ ∫₀¹ ∇s(f(x' + α(x − x'))) dα (Sundararajan et al. 2017).

    Complete: Σ_i a_i = s(f(x)) − s(f(x')), up to the error of the quadrature.

    Args:
        steps: points on the path, ≥ 1.
        rule: the quadrature, "gauss_legendre" or "riemann_midpoint".
        baseline: images → x', such as those in `attributions.baselines`; one that draws is drawn from once.
        seed: of a baseline that draws, when the call gives no generator.
    """

    steps: int = 32
    rule: str = "gauss_legendre"
    baseline: AnyBaseline = field(default_factory=Constant)
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("IntegratedGradients", 1, steps=self.steps)
        if self.rule not in RULES:
            raise one_of("IntegratedGradients.rule", self.rule, list(RULES))

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        start = baseline_images(self.baseline, x, generator)
        path = x - start
        nodes, weights = (
            values.to(x.device, x.dtype).view(-1, *[1] * x.dim()) for values in RULES[self.rule](self.steps)
        )
        mean_gradient = torch.zeros_like(x)
        for part in self.passes(self.steps, len(x)):
            gradients = self.gradient(model, start + nodes[part] * path, score, create_graph)
            mean_gradient = mean_gradient + (weights[part] * gradients).sum(0)
        return path * mean_gradient

    def settings(self) -> Mapping[str, Attribution]:
        """Baselines of another kind."""
        kinds: dict[str, AnyBaseline] = {"blurred": GaussianBlur(), "mean": ImageMean(), "white": Constant(1.0)}
        return {name: replace(self, baseline=baseline) for name, baseline in kinds.items()}

    def default_generator(self, count: int) -> Generator:
        return SampleStreams(self.seed, range(count))
