"""Gradients with respect to images that can be differentiated once more, and norms that are safe at zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attributions import scores
from xrobust.attributions.base import Score
from xrobust.errors import one_of
from xrobust.frame import hard_labels, logits_of


def loss_of(y: Tensor) -> Score:
    """CE(·, y) of each image, in float32 at least; y are labels (N,) or class probabilities (N, K)."""

    def loss(logits: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, y.to(logits.dtype) if y.is_floating_point() else y, reduction="none")

    return loss


def logit_of(y: Tensor) -> Score:
    """The logit of the label."""
    return lambda logits: logits.gather(1, hard_labels(y)[:, None])[:, 0]


def margin_of(y: Tensor) -> Score:
    """The logit of the label minus the largest other one."""
    return scores.margin(hard_labels(y))


SCORES = {"loss": loss_of, "logit": logit_of, "margin": margin_of}


def score_of(name: str, y: Tensor) -> Score:
    """The score of that name: "loss", "logit" or "margin"."""
    return SCORES[name](y)


def check_score(place: str, name: str) -> None:
    """Refuse a name that is no score."""
    if name not in SCORES:
        raise one_of(place, name, list(SCORES))


def leaf(x: Tensor) -> Tensor:
    """x, if it requires gradients, or else a copy that does."""
    return x if x.requires_grad else x.detach().requires_grad_()


def value_and_gradient(
    model: nn.Module, x: Tensor, score: Score, *, create_graph: bool = True
) -> tuple[Tensor, Tensor]:
    """score(f(x)), (N,), and its gradient with respect to x, of x's shape, in the model's present mode."""
    x_in = leaf(x)
    value = score(logits_of(model, x_in))
    (gradient,) = torch.autograd.grad(value.sum(), x_in, create_graph=create_graph, retain_graph=True)
    return value, gradient


def input_gradient(model: nn.Module, x: Tensor, score: Score, *, create_graph: bool = True) -> Tensor:
    """∇ₓ score(f(x)), of x's shape, in the model's present mode."""
    x_in = leaf(x)
    (gradient,) = torch.autograd.grad(score(logits_of(model, x_in)).sum(), x_in, create_graph=create_graph)
    return gradient


def l1_norm(v: Tensor) -> Tensor:
    """‖v‖₁ for each sample, (N, ...) → (N,); its derivative at 0 is 0."""
    return v.flatten(1).abs().sum(1)


def l2_norm(v: Tensor) -> Tensor:
    """‖v‖₂ for each sample, (N, ...) → (N,); its derivative at 0 is 0. Squares of tiny entries do not underflow."""
    v = v.flatten(1)
    scale = v.detach().abs().amax(1, keepdim=True)
    defined = scale > 0
    unit = torch.where(defined, v / scale.where(defined, 1), 1.0)
    return torch.where(defined[:, 0], scale[:, 0] * unit.norm(dim=1), 0.0)


def squared_norm(v: Tensor) -> Tensor:
    """‖v‖₂² for each sample: (N, ...) → (N,)."""
    return v.flatten(1).square().sum(1)


def unit(v: Tensor) -> Tensor:
    """v / ‖v‖₂ of each sample, without gradient; 0 where v is."""
    v = v.detach()
    length = l2_norm(v)
    return v / length.where(length > 0, 1).view(-1, *[1] * (v.dim() - 1))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ for each sample: (N, ...) → (N,)."""
    return (a * b).flatten(1).sum(1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ / (‖a‖ ‖b‖) for each sample, (N, ...) → (N,); 1, and without gradient, where a or b vanishes."""
    a, b = a.flatten(1), b.flatten(1)
    vanishing = torch.finfo(a.dtype).tiny ** 0.5  # below, 1/‖a‖² is infinite
    scales = [v.detach().abs().amax(1, keepdim=True) for v in (a, b)]
    defined = torch.stack(scales).amin(0) > vanishing
    a, b = (torch.where(defined, v / scale.where(defined, 1), 1.0) for v, scale in zip((a, b), scales, strict=True))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
