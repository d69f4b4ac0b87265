"""Filling missing pixels in from those that are left."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbour_sum(images: Tensor) -> Tensor:
    """Σ_j w_ij x_j over the eight neighbours j of each pixel i within the image: (..., H, W) → (..., H, W).

    w is 1/6 for the four direct neighbours and 1/12 for the four diagonal ones (Rong et al. 2022). With the pixel
    itself at 1/3 these are the weights of [1 2 1]ᵀ[1 2 1] / 12, which works along rows and columns apart.
    """
    return _one_two_one(_one_two_one(images, -1), -2) / 12 - images / 3


def _one_two_one(values: Tensor, dim: int) -> Tensor:
    """v_{i−1} + 2v_i + v_{i+1} along one dimension, zero outside."""
    last = values.shape[dim] - 1
    total = 2 * values
    total.narrow(dim, 1, last).add_(values.narrow(dim, 0, last))
    total.narrow(dim, 0, last).add_(values.narrow(dim, 1, last))
    return total


def linear_imputation(images: Tensor, missing: Tensor, tolerance: float = 1e-5) -> Tensor:
    """Each missing pixel becomes the weighted mean of its neighbours, missing ones included (Rong et al. 2022).

    Solves Σ_j w_ij (x_i − x_j) = 0 for all missing i at once, j running over the neighbours within the image: a
    symmetric positive definite system for each channel, by conjugate gradients. A system that has converged stands
    still, so that no image depends on the others of its batch.

    Args:
        images: (N, C, H, W), finite; what they hold at missing pixels is ignored.
        missing: (N, 1, H, W) bool. Nothing is known of an image that misses all pixels: it becomes zero.
        tolerance: of the residual, relative to that of an image of zeros (Euclidean).

    Returns:
        (N, C, H, W).
    """
    gaps = missing.to(images.dtype)
    known = images * (1 - gaps)
    degree = neighbour_sum(torch.ones_like(gaps))

    def system(values: Tensor) -> Tensor:
        return gaps * (degree * values - neighbour_sum(values))

    def inner(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum((-2, -1), keepdim=True)

    filled = torch.zeros_like(images)
    residual = gaps * neighbour_sum(known)
    direction, square = residual, inner(residual, residual)
    limit = tolerance**2 * square
    for _ in range(images.shape[-2] * images.shape[-1]):  # in exact arithmetic no system needs more steps
        active = square > limit
        if not active.any():
            break
        moved = system(direction)
        step = (square / inner(direction, moved)).where(active, 0)
        filled += step * direction
        residual = residual - step * moved
        square, before = inner(residual, residual), square
        direction = residual + (square / before).where(active, 0) * direction
    return known + filled
