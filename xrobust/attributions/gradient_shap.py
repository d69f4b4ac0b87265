"""GradientSHAP."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xrobust.attributions.expected_gradients import ExpectedGradients
from xrobust.errors import at_least
from xrobust.randomness import Generator, normal_like


@dataclass(frozen=True, kw_only=True)
class GradientShap(ExpectedGradients):
    """a = E[(z − x') ⊙ ∇s(f(x' + α(z − x')))], z = x + σ·ξ, ξ ~ N(0, I) (Lundberg & Lee 2017, in their code).

    Expected gradients with Gaussian noise on the image. Complete in expectation for the noisy images:
    E Σ_i a_i = E s(f(z)) − E s(f(x')).

    Args:
        references: the distribution of x', see `ExpectedGradients`.
        sigma: σ ≥ 0, the standard deviation of the noise, relative to the pixel range [0, 1].
        samples: n ≥ 1, triples (x', α, ξ) for each image.
        seed: of the draws when the call gives no generator.
    """

    sigma: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("GradientShap", 0.0, sigma=self.sigma)

    def end(self, x: Tensor, generator: Generator) -> Tensor:
        return x + self.sigma * normal_like(x, generator).to(x.dtype)
