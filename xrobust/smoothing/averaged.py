"""The mean of softmax outputs under noise, in the logarithm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from xrobust.errors import UserError


def mean_log_probability(logits: Tensor) -> Tensor:
    """log p̄ = log (1/m) Σ_k softmax(z_k): (m, N, K) → (N, K), in float32 at least.

    Its softmax is p̄ again, so that it serves as logits of the smoothed classifier.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.log_softmax(2).logsumexp(0) - math.log(len(logits))


class UnderNoise(nn.Module):
    """x ↦ log p̄(x) for given noise: the smoothed classifier as an attack sees it, (N, C, H, W) → (N, K).

    Args:
        model: the base classifier.
        noise: (m, N, C, H, W), m draws for each image of the batch.
    """

    def __init__(self, model: nn.Module, noise: Tensor):
        super().__init__()
        self.model, self.noise = model, noise

    def forward(self, x: Tensor) -> Tensor:
        if x.shape != self.noise.shape[1:]:
            raise UserError(
                f"an attack under given noise must keep the batch together (PGD: keep=last): the noise is for images "
                f"{tuple(self.noise.shape[1:])}, got {tuple(x.shape)}"
            )
        return mean_log_probability(noisy_logits(self.model, x, self.noise))


def noisy_logits(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """f(x + δ_k) for each draw, in one pass: (N, C, H, W), (m, N or 1, C, H, W) → (m, N, K)."""
    points = x + noise.to(x.dtype)
    return model(points.flatten(0, 1)).unflatten(0, points.shape[:2])
