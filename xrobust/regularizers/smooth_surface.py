"""The largest curvature of the loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xrobust.frame import logits_of
from xrobust.randomness import Generator
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.gradients import leaf, unit


@dataclass(frozen=True, kw_only=True)
class SmoothSurface(Regularizer):
    """SSR: R(x) = λ_max(Jᵀ (diag p − p pᵀ) J), J = ∂f/∂x, p = softmax f(x) (Wang et al. 2020).

    For a network that is piecewise linear in x, this matrix is the Hessian of the cross entropy; for others it is its
    Gauss–Newton part, without the curvature of the logits. With A = diag p − p pᵀ = B Bᵀ, B = diag √p − p √pᵀ, the
    eigenvalue is that of the K × K matrix Bᵀ J Jᵀ B. Its derivative is that of vᵀ Jᵀ A J v, v the eigenvector as a
    constant, so that the K rows of J need no second derivative.
    """

    def penalty(self, model: nn.Module, x: Tensor, y: Tensor, logits: Tensor, generator: Generator) -> Tensor:
        x_in = leaf(x)
        output = logits_of(model, x_in)
        p = output.softmax(1)
        direction = _steepest_curvature(output, x_in, p.detach())
        # J v by differentiating Jᵀ u, which is linear in u.
        u = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad(output, x_in, u, create_graph=True)
        (pushed,) = torch.autograd.grad(pulled, u, direction, create_graph=True)
        mean = (p * pushed).sum(1, keepdim=True)
        return (p * (pushed - mean).square()).sum(1)


def _steepest_curvature(logits: Tensor, x: Tensor, p: Tensor) -> Tensor:
    """The unit eigenvector of the largest eigenvalue of Jᵀ A J for each image, of x's shape; 0 where J vanishes."""
    rows = [torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0] for k in range(logits.shape[1])]
    jacobian = torch.stack(rows, 1).flatten(2)  # (N, K, d)
    root = p.sqrt()
    factor = torch.diag_embed(root) - p[:, :, None] * root[:, None]  # B
    scale = jacobian.abs().amax((1, 2), keepdim=True)  # squares of tiny entries would underflow
    pulled = factor.mT @ (jacobian / scale.where(scale > 0, 1))
    top = torch.linalg.eigh(pulled @ pulled.mT).eigenvectors[:, :, -1:]
    return unit((pulled.mT @ top)[:, :, 0]).view_as(x)
