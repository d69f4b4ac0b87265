"""Input times gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class InputXGradient(Attribution):
    """a = x ⊙ ∇ₓ s(f(x)); sums to s(f(x)) for a ReLU network without biases (Shrikumar et al. 2016)."""

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        return x * self.gradient(model, x[None], score, create_graph)[0]
