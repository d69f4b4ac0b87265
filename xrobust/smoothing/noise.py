"""The noise that classifiers are smoothed with, and the radius that a probability is worth."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from xrobust.errors import UserError, one_of
from xrobust.smoothing.bounds import SLACK

ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


@dataclass(frozen=True, kw_only=True)
class Noise(ABC):
    """A distribution of independent noise on every pixel, added to images and not clipped to [0, 1].

    Args:
        sigma: the standard deviation σ > 0, in units of the pixel range [0, 1].

    Class attributes:
        norm: in which its guarantee is proven; others follow from it.
    """

    norm: ClassVar[str]

    sigma: float

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, int | float) or isinstance(self.sigma, bool) or not 0 < self.sigma < math.inf:
            raise UserError(f"{type(self).__name__}.sigma must be above 0, got {self.sigma!r}")

    @abstractmethod
    def fill(self, out: Tensor, generator: torch.Generator) -> Tensor:
        """Draw into `out`, of any shape, from a generator on its device; returns it."""

    @abstractmethod
    def radius_of(self, probability: NDArray) -> NDArray:
        """The radius, in `norm`, within which a class of at least this probability under noise keeps more than 1/2."""

    @abstractmethod
    def probability_at(self, radius: float) -> float:
        """Its inverse: the probability that is worth this radius; 1 where none is enough."""

    def radius(self, probability: ArrayLike, norm: str, dimension: int) -> NDArray:
        """The certified radius R: the class stays the most probable one under noise for all ‖δ‖ ≤ R.

        Args:
            probability: a lower bound p of the class's probability, in [0, 1].
            norm: "l2", "linf" or "l1"; other norms than the native one by ‖δ‖_p ≤ d^(1/p − 1/q)₊ · ‖δ‖_q.
            dimension: d, how many numbers an image has.

        Returns:
            float64, rounded downwards, so that the ball's surface is covered; 0 for p ≤ 1/2.
        """
        p = np.asarray(probability, np.float64)
        native = np.where(p > 0.5, self.radius_of(np.maximum(p, 0.5)), 0.0)
        return native / self._stretch(norm, dimension) * (1 - SLACK)

    def threshold(self, radius: float, norm: str, dimension: int) -> float:
        """The probability that must be exceeded for a certified radius above `radius`, rounded upwards; 1 for never."""
        return min(1.0, self.probability_at(radius * self._stretch(norm, dimension) * (1 + SLACK)) * (1 + SLACK))

    def _stretch(self, norm: str, dimension: int) -> float:
        """How large the native norm of a perturbation of norm 1 can be."""
        if norm not in ORDERS:
            raise one_of("norm", norm, ORDERS)
        return dimension ** max(0.0, 1 / ORDERS[self.norm] - 1 / ORDERS[norm])


@dataclass(frozen=True, kw_only=True)
class GaussianNoise(Noise):
    """N(0, σ²I): R = σ · Φ⁻¹(p) in L2, which is tight (Cohen et al. 2019); R in L1, R / √d in Linf."""

    norm: ClassVar[str] = "l2"

    def fill(self, out: Tensor, generator: torch.Generator) -> Tensor:
        return out.normal_(0, self.sigma, generator=generator)

    def radius_of(self, probability: NDArray) -> NDArray:
        return self.sigma * ndtri(probability)

    def probability_at(self, radius: float) -> float:
        return float(ndtr(radius / self.sigma))


@dataclass(frozen=True, kw_only=True)
class UniformNoise(Noise):
    """U[−λ, λ] on every pixel, λ = √3 σ: R = 2λ (p − 1/2) in L1 (Yang et al. 2020); R / √d in L2, R / d in Linf."""

    norm: ClassVar[str] = "l1"

    @property
    def half_width(self) -> float:
        """λ."""
        return math.sqrt(3) * self.sigma

    def fill(self, out: Tensor, generator: torch.Generator) -> Tensor:
        return out.uniform_(-self.half_width, self.half_width, generator=generator)

    def radius_of(self, probability: NDArray) -> NDArray:
        return 2 * self.half_width * (probability - 0.5)

    def probability_at(self, radius: float) -> float:
        return 0.5 + radius / (2 * self.half_width)
