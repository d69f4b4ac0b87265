"""The boundary-based saliency map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.boundary import BoundaryAttribution


@dataclass(frozen=True, kw_only=True)
class BoundarySaliency(BoundaryAttribution):
    """a = ∇s(f(x_b)), the gradient at the nearest point x_b of the decision boundary (Wang et al. 2022, BSM).

    With `scores.margin` as the target it is the normal of the boundary at x_b.

    Args:
        attack, bisections, seed: see `BoundaryAttribution`; the map is NaN where the attack fails.
    """

    def explain(self, model: nn.Module, x: Tensor, points: Tensor, score: Score) -> Tensor:
        return self.gradient(model, points[None], score, False)[0]
