"""PGD from very near the image, for losses that compare with the image itself."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xrobust.attacks.pgd import PGD
from xrobust.errors import at_least
from xrobust.randomness import Generator, normal_like


@dataclass(frozen=True, kw_only=True)
class NearStartPGD(PGD):
    """PGD from Π(x + σ · n), n standard normal: the inner maximisation of TRADES (Zhang et al. 2019).

    At x itself a divergence from f(x) has no gradient; a little noise is enough to leave it.

    Args:
        start_std: σ in pixel units.
    """

    start_std: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 0.0, start_std=self.start_std)

    def _start(self, x: Tensor, generator: Generator) -> Tensor:
        if not self.random_start:
            return x
        return self.threat.project(x + self.start_std * normal_like(x, generator).to(x.dtype), x)
