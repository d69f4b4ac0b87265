"""Noise: the baselines that every attack must beat."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attacks.base import Attack
from xrobust.attacks.losses import cross_entropy
from xrobust.attacks.standing import Worst, require_at_least
from xrobust.frame import logits_of, predictions
from xrobust.randomness import Generator, normal_like, subset
from xrobust.threat import per_sample


@dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """The worst of some random points: the first that the model gets wrong, else the one of largest loss.

    Args:
        draws: points tried for each sample, ≥ 1; a single one is returned without asking the model.
    """

    draws: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, draws=1)

    @abstractmethod
    def draw(self, x: Tensor, generator: Generator) -> Tensor:
        """A random point for each sample, of x's shape."""

    def run(self, model: nn.Module, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        if self.draws == 1:
            return self.draw(x, generator)
        worst = Worst(x)
        for _ in range(self.draws):
            rows = worst.standing
            if not len(rows):
                break
            points = self.threat.project(self.draw(x[rows], subset(generator, rows)), x[rows])
            with torch.no_grad():
                logits = logits_of(model, points)
            worst.offer(rows, points, cross_entropy(logits, y[rows]), predictions(logits) != y[rows])
        return worst.x_adv


@dataclass(frozen=True, kw_only=True)
class UniformNoise(Noise):
    """A uniform point of B_p(x, ε), clipped to the box."""

    def draw(self, x: Tensor, generator: Generator) -> Tensor:
        return self.threat.random_start(x, generator)


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Noise):
    """x + ε n / ‖n‖_p with n ~ N(0, I), clipped to the box: a Gaussian direction, scaled onto the sphere."""

    def draw(self, x: Tensor, generator: Generator) -> Tensor:
        noise = normal_like(x, generator).to(x.dtype)
        length = self.threat.distance(noise, torch.zeros_like(noise)).to(x.dtype)
        return x + self.threat.radius * noise / per_sample(length, x)
