"""Boundary-based integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.baselines import FixedImages
from xrobust.attributions.boundary import BoundaryAttribution
from xrobust.attributions.integrated_gradients import IntegratedGradients
from xrobust.errors import at_least


@dataclass(frozen=True, kw_only=True)
class BoundaryIntegratedGradients(BoundaryAttribution):
    """a = (x − x_b) ⊙ ∫₀¹ ∇s(f(x_b + α(x − x_b))) dα, x_b the nearest boundary point (Wang et al. 2022, BIG).

    Complete with respect to x_b: Σ_i a_i = s(f(x)) − s(f(x_b)), up to the error of the quadrature.

    Args:
        attack, bisections, seed: see `BoundaryAttribution`; the map is NaN where the attack fails.
        steps, rule: of the quadrature, see `IntegratedGradients`.
    """

    steps: int = 32
    rule: str = "gauss_legendre"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(type(self).__name__, 1, steps=self.steps)
        IntegratedGradients(steps=self.steps, rule=self.rule)  # refuses what it cannot integrate with

    def explain(self, model: nn.Module, x: Tensor, points: Tensor, score: Score) -> Tensor:
        path = IntegratedGradients(
            steps=self.steps, rule=self.rule, baseline=FixedImages(points), batch_size=self.batch_size
        )
        return path(model, x, score)
