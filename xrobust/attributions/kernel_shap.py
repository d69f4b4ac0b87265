"""Kernel SHAP."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.baselines import baseline_images
from xrobust.attributions.black_box import scores_at
from xrobust.attributions.segments import SegmentBlackBox
from xrobust.randomness import Generator, uniform_like


@dataclass(frozen=True, kw_only=True)
class KernelShap(SegmentBlackBox):
    """a = the Shapley values φ of the segments, by weighted least squares (Lundberg & Lee 2017).

    φ minimises Σ_z π(z)·(s(x') + ⟨φ, z⟩ − s(x_z))² with the constraint Σφ = s(x) − s(x'), so the map is complete.
    π(z) = (M − 1) / (C(M,|z|)·|z|·(M − |z|)) for M segments, of which |z| are kept. If there are no more coalitions
    than samples, 2^M − 2, all are tried and φ is exact. Otherwise coalitions are drawn with probability π, each
    with its complement (Covert & Lee 2021), and φ is an estimate. In closed form, in float64.

    Args:
        grid, samples, baseline, seed: as in `SegmentBlackBox`; one forward pass for each sample, rounded up to pairs.
    """

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        assert generator is not None
        baseline = baseline_images(self.baseline, x, generator)
        count = self.grid**2
        if 2**count - 2 <= self.samples:
            chosen, weight = every_coalition(count, x.device)
        else:
            chosen, weight = self.drawn(x, generator), torch.ones(())
        empty, full = scores_at(model, torch.stack([baseline, x]), score, self.batch_size).double()
        scores = self.scores(model, x, baseline, score, self.kept(chosen, x), len(chosen)).double()
        z = chosen.transpose(0, 1).double()
        return self.spread(constrained_least_squares(z, (scores - empty).T, weight.to(z), full - empty), x)

    def drawn(self, x: Tensor, generator: Generator) -> Tensor:
        """Coalitions drawn with probability π in pairs with their complements: (S, N, M), S even and ≥ 2."""
        count, pairs = self.grid**2, (self.samples + 1) // 2
        draws = uniform_like(x.new_empty(len(x), pairs, count + 1), generator).double()
        size = torch.arange(1, count, device=x.device, dtype=torch.float64)
        # All coalitions of a size together have the probability ∝ 1 / (k·(M − k)).
        below = (1 / (size * (count - size))).cumsum(0)
        sizes = 1 + torch.searchsorted(below / below[-1], draws[..., :1].contiguous(), right=True)
        chosen = draws[..., 1:].argsort(-1).argsort(-1) < sizes
        return torch.cat([chosen, ~chosen], 1).transpose(0, 1)


def every_coalition(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All coalitions of M segments but the empty and the full one, (2^M − 2, 1, M) bool, and their π, (2^M − 2,)."""
    numbers = torch.arange(1, 2**count - 1, device=device)
    chosen = (numbers[:, None] >> torch.arange(count, device=device)) & 1 == 1
    weights = [(count - 1) / (comb(count, k) * k * (count - k)) for k in range(1, count)]
    return chosen[:, None], torch.tensor(weights, dtype=torch.float64, device=device)[chosen.sum(1) - 1]


def constrained_least_squares(z: Tensor, y: Tensor, weight: Tensor, total: Tensor) -> Tensor:
    """argmin_φ Σ_k w_k·(y_k − ⟨φ, z_k⟩)² subject to Σφ = total, for each of N problems.

    Where the z_k do not determine φ, the shortest solution is taken.

    Args:
        z: (N, S, M) or (1, S, M). y: (N, S). weight: (S,) or (). total: (N,).

    Returns:
        φ: (N, M).
    """
    weighted = (weight[..., None] * z).mT
    inverse = torch.linalg.pinv(weighted @ z, hermitian=True)
    free = (inverse @ (weighted @ y[..., None]))[..., 0]
    along = inverse.sum(2)  # what a change of the constraint's multiplier does to φ
    return free + along * ((total - free.sum(1)) / along.sum(1))[:, None]
