"""The classes that a sample could be pushed to, and the boundaries towards them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xrobust.attacks.hyperplane import dual_norm
from xrobust.attacks.standing import choose
from xrobust.frame import logits_of


def likeliest_others(logits: Tensor, y: Tensor) -> Tensor:
    """The classes other than y, from the largest logit to the smallest: (N, K), (N,) → (N, K − 1)."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)[:, :-1]


def nearest_boundary(norm: str, model: nn.Module, x: Tensor, y: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The boundary z_k = z_y, linearised at x, that lies nearest to x among the classes k of each sample.

    Args:
        norm: of the distance |z_k − z_y| / ‖∇(z_k − z_y)‖_q.
        x: (N, ...).
        y: (N,).
        classes: (N, k), without y; each costs a backward pass.

    Returns:
        z_k − z_y, (N,), and ∇ₓ(z_k − z_y), of x's shape.
    """
    x_in = x.detach().requires_grad_()
    logits = logits_of(model, x_in)
    margins = logits.gather(1, classes) - logits.gather(1, y[:, None])
    nearest_margin, nearest_normal = torch.zeros_like(margins[:, 0].detach()), torch.zeros_like(x)
    least = torch.full_like(nearest_margin, torch.inf)
    for margin in margins.unbind(1):
        (normal,) = torch.autograd.grad(margin.sum(), x_in, retain_graph=True)
        distance = margin.detach().abs() / dual_norm(norm, normal).clamp(min=1e-12)
        nearer = distance < least
        least = torch.minimum(distance, least)
        nearest_margin = torch.where(nearer, margin.detach(), nearest_margin)
        nearest_normal = choose(nearer, normal, nearest_normal)
    return nearest_margin, nearest_normal
