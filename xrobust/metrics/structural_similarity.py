"""The structural similarity of two maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """The mean SSIM of nonnegative maps, each scaled to a maximum of 1 (Wang et al. 2004): (N, H, W) → (N,).

    A Gaussian window of 11 × 11, σ = 1.5, at all places where it fits; in smaller maps the largest odd window that
    does. In [−1, 1]; NaN if a map is zero or not finite.
    """
    first, second = (values.double() / values.double().amax((1, 2), keepdim=True) for values in (first, second))
    side = min(WINDOW, *first.shape[1:])
    side -= 1 - side % 2
    offset = torch.arange(side, device=first.device, dtype=first.dtype) - side // 2
    weights = torch.exp(-offset.square() / (2 * SIGMA**2))
    window = torch.outer(weights, weights)[None, None] / weights.sum() ** 2

    def local_mean(values: Tensor) -> Tensor:
        return F.conv2d(values[:, None], window)[:, 0]

    mean, other_mean = local_mean(first), local_mean(second)
    variance = local_mean(first.square()) - mean.square()
    other_variance = local_mean(second.square()) - other_mean.square()
    covariance = local_mean(first * second) - mean * other_mean
    luminance = (2 * mean * other_mean + K1**2) / (mean.square() + other_mean.square() + K1**2)
    structure = (2 * covariance + K2**2) / (variance + other_variance + K2**2)
    return (luminance * structure).mean((1, 2))
