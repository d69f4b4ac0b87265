"""The gradient of the smoothed classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Score
from xrobust.attributions.smooth_grad import SmoothGrad
from xrobust.frame import logits_of
from xrobust.randomness import Generator, normal_like
from xrobust.smoothing import mean_log_probability


@dataclass(frozen=True, kw_only=True)
class SmoothedGradient(SmoothGrad):
    """a = ∇ₓ s(log p̄(x)), p̄(x) = (1/n) Σ_k softmax f(x + δ_k), δ_k ~ N(0, σ²I): the score of the smoothed classifier.

    For a label it is ∇ log p̄_y = Σ_k r_k ∇ log p_y(x + δ_k) with r_k = p_y(x + δ_k) / Σ_j p_y(x + δ_j): SmoothGrad of
    log-probabilities, weighted by how much each copy contributes to the vote (SmoothGrad itself averages gradients of
    logits, so it explains no classifier that anybody uses). log p̄ takes the place of the logits in every target.

    The draws of all images, (n, N, C, H, W), are in memory at once; only passes through the model are bounded.

    Args:
        sigma: σ ≥ 0, best that of the certificates.
        samples: n ≥ 1.
        seed: of the noise when the call gives no generator.
    """

    sigma: float = 0.5

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        assert generator is not None
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        noise = torch.stack([normal_like(x, generator) for _ in range(self.samples)]).to(x.dtype)
        points = (x + self.sigma * noise).flatten(0, 1)

        def total(logits: Tensor) -> Tensor:
            return score(mean_log_probability(logits.unflatten(0, noise.shape[:2]))).sum()

        if create_graph or len(points) <= self.batch_size:
            return torch.autograd.grad(total(logits_of(model, points)), x, create_graph=create_graph)[0]
        # By the chain rule in two steps: how the score depends on all logits, then how those depend on each part.
        parts = [part.detach().requires_grad_() for part in points.split(self.batch_size)]
        with torch.no_grad():
            logits = torch.cat([logits_of(model, part) for part in parts])
        (weights,) = torch.autograd.grad(total(logits.requires_grad_()), logits)
        gradients = [
            torch.autograd.grad(logits_of(model, part), part, weight)[0]
            for part, weight in zip(parts, weights.split(self.batch_size), strict=True)
        ]
        return torch.cat(gradients).view_as(noise).sum(0)
