"""LIME."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.baselines import baseline_images
from xrobust.attributions.segments import SegmentBlackBox
from xrobust.errors import UserError
from xrobust.randomness import Generator, uniform_like


@dataclass(frozen=True, kw_only=True)
class Lime(SegmentBlackBox):
    """a = β of the ridge regression min Σ_k π(z_k)·(s(x_k) − β₀ − ⟨β, z_k⟩)² + λ‖β‖² (Ribeiro et al. 2016).

    z_k says which segments are kept in x_k: all in the first, each with probability ½ in the others. The weight is
    π(z) = exp(−d²/2w²), d the cosine distance between z and the whole image. In closed form, in float64.

    Args:
        kernel_width: w > 0.
        ridge: λ > 0; the constant β₀ is not penalised.
        grid, samples, baseline, seed: as in `SegmentBlackBox`; one forward pass for each sample.
    """

    kernel_width: float = 0.25
    ridge: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kernel_width", "ridge"):
            if not getattr(self, name) > 0:
                raise UserError(f"Lime.{name} must be above 0, got {getattr(self, name)!r}")

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        assert generator is not None
        baseline = baseline_images(self.baseline, x, generator)
        draws = uniform_like(x.new_empty(len(x), self.samples, self.grid**2), generator)
        chosen = (draws < 0.5).transpose(0, 1)
        chosen[0] = True
        scores = self.scores(model, x, baseline, score, self.kept(chosen, x), self.samples)
        z = chosen.transpose(0, 1).double()
        # The cosine of z and (1, …, 1) is √(share of ones); the empty choice is at distance 1.
        weight = torch.exp(-(1 - z.mean(2).sqrt()).square() / (2 * self.kernel_width**2))
        return self.spread(weighted_ridge(z, scores.T.double(), weight, self.ridge), x)


def weighted_ridge(z: Tensor, y: Tensor, weight: Tensor, ridge: float) -> Tensor:
    """argmin_β min_β₀ Σ_k w_k·(y_k − β₀ − ⟨β, z_k⟩)² + λ‖β‖², for each of N problems.

    Args:
        z: (N, S, M). y, weight: (N, S). ridge: λ > 0.

    Returns:
        β: (N, M).
    """
    share = (weight / weight.sum(1, keepdim=True))[..., None]
    z = z - (share * z).sum(1, keepdim=True)  # the best β₀ makes the weighted means agree
    y = y - (share[..., 0] * y).sum(1, keepdim=True)
    weighted = (weight[..., None] * z).mT
    return torch.linalg.solve(weighted @ z + ridge * torch.eye(z.shape[2]).to(z), weighted @ y[..., None])[..., 0]
