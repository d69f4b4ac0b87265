"""FullGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from xrobust.attributions.base import Attribution, Score
from xrobust.attributions.hooks import hooked
from xrobust.attributions.maps import has_places, over_channels, resized
from xrobust.attributions.parts import Weigh, in_parts
from xrobust.errors import UserError
from xrobust.frame import logits_of
from xrobust.randomness import Generator


@dataclass(frozen=True, kw_only=True)
class FullGrad(Attribution):
    """a = ψ(x ⊙ ∇s) + Σ_l Σ_c ψ(b_l ⊙ ∂s/∂y_l)_c, y_l a layer's output and b_l its bias (Srinivas & Fleuret 2019).

    The terms are complete before ψ, see `full_gradient`. ψ takes absolute values, scales each layer's to [0, 1] for
    each image (minus the minimum, over the maximum) and interpolates bilinearly; so the map is never negative and
    its sum has no meaning. Layers without a place in the image (dense ones) have no part in it, as in the paper. Each
    of the C channels of the result has an equal share.
    """

    demands: ClassVar[str] = "a gradient, and no attention or gates"

    def attribute(
        self, model: nn.Module, x: Tensor, score: Score, create_graph: bool, generator: Generator | None
    ) -> Tensor:
        def explain(part: Tensor, rows: slice, weigh: Weigh) -> Tensor:
            terms = full_gradient(model, part, weigh, create_graph=create_graph)
            maps = [_psi(term, part) for term in terms if has_places(term, part)]
            return over_channels(torch.stack(maps).sum(0), part)

        return in_parts(explain, model, x, score, batch_size=self.batch_size, create_graph=create_graph)


def _psi(term: Tensor, x: Tensor) -> Tensor:
    """ψ, summed over the layer's channels: (N, K, h, w) → (N, H, W)."""
    size = term.abs()
    size = size - size.amin((1, 2, 3), keepdim=True)
    largest = size.amax((1, 2, 3), keepdim=True)
    return resized((size / largest.where(largest > 0, 1)).sum(1), x)


def full_gradient(model: nn.Module, x: Tensor, weigh: Weigh, *, create_graph: bool = False) -> list[Tensor]:
    """x ⊙ ∇s, then b ⊙ ∂s/∂y for each call of a layer in order; all entries sum to Σ_k ∂s/∂f_k · f_k, the logit itself.

    b = y − J·h is the bias of a layer h ↦ y with the Jacobian J: that of a convolution or dense layer, β − γ·μ/σ of a
    batch norm, −mean/std of a normalisation, η(h) − h·η'(h) of a smooth activation, 0 of ReLU and pooling.

    Args:
        x: (N, C, H, W).
        weigh: logits (N, K) → ∂s/∂logits.

    Raises:
        UserError: if they do not, because biases or curvature are in functions that are no modules of one input.
    """
    points = x if x.requires_grad else x.detach().requires_grad_()
    outputs: list[Tensor] = []
    biases: list[Tensor] = []

    def note(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        if any(module.children()) or len(inputs) != 1 or not all(isinstance(t, Tensor) for t in (*inputs, output)):
            return None
        biases.append(_bias(module, inputs[0], create_graph))
        if not output.requires_grad:  # a layer that the image does not reach is all bias
            output = output.detach().requires_grad_()
        outputs.append(output)
        return output.clone()  # what follows may write into it

    with hooked(model, note):
        logits = logits_of(model, points)
    weights = weigh(logits)
    gradients = torch.autograd.grad(
        logits, [points, *outputs], weights, create_graph=create_graph, materialize_grads=True
    )
    factors = [points if create_graph else points.detach(), *biases]
    terms = [(factor * gradient).to(x.dtype) for factor, gradient in zip(factors, gradients, strict=True)]
    precision = max((torch.finfo(bias.dtype).eps for bias in biases), default=0.0)
    if not _complete(terms, (weights * logits).sum(1).detach(), precision):
        raise UserError(
            "FullGrad's terms do not sum to the logit: the model has biases or curvature in functions "
            "that are no modules of one input, such as attention"
        )
    return terms


def _bias(module: nn.Module, h: Tensor, create_graph: bool) -> Tensor:
    """y − J·h; J·h by two backward passes, since Jᵀ·v is linear in v with the derivative J."""
    h = h if create_graph and h.requires_grad else h.detach().requires_grad_()
    y = module.forward(h)  # its own, without hooks: we are inside one
    v = torch.zeros_like(y, requires_grad=True)
    (back,) = torch.autograd.grad(y, h, v, create_graph=True, materialize_grads=True)
    (slope,) = torch.autograd.grad(back, v, h, create_graph=create_graph, materialize_grads=True)
    bias = y - slope
    return bias if create_graph else bias.detach()


def _complete(terms: list[Tensor], explained: Tensor, precision: float) -> bool:
    """Whether all entries of each sample sum to what is explained, (N,), up to rounding."""
    if any(len(term) != len(explained) for term in terms):
        return False
    flat = torch.cat([term.detach().flatten(1) for term in terms], 1)
    return bool(((flat.sum(1) - explained).abs() <= 1e3 * precision * flat.abs().sum(1)).all())
