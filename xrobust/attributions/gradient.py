"""The saliency map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class Gradient(Attribution):
    """a = ∇ₓ s(f(x)), signed (Simonyan et al. 2014, who take its absolute value)."""

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        return self.gradient(model, x[None], score, create_graph)[0]
