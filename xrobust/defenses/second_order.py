"""Losses that contain gradients with respect to the images, and are differentiated once more."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.defenses.base import at_least_float32
from xrobust.defenses.batch_norm import frozen_statistics
from xrobust.errors import UserError


def refuse_compiled(defense: pl.LightningModule) -> None:
    """Refuse a compiled model, or a compiled training step: `torch.compile` cannot differentiate twice.

    Raises:
        UserError: naming the method.
    """
    compiled = getattr(defense, "_compiler_ctx", None) is not None or any(
        isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None
        for module in defense.modules()
    )
    if compiled:
        raise UserError(
            f"{type(defense).__name__} differentiates a gradient, which torch.compile cannot do: give it the model "
            "without torch.compile"
        )


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, *, create_graph: bool = True) -> Tensor:
    """∇ₓ CE(f(x), y) of each sample, of x's shape, in the model's present mode; batch norm's statistics stay."""
    x_in = x.detach().requires_grad_()
    with frozen_statistics(model):
        loss = F.cross_entropy(at_least_float32(model(x_in)), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x_in, create_graph=create_graph)
    return gradient


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ / (‖a‖ ‖b‖) for each sample, (N, ...) → (N,); 1, and without gradient, where a or b vanishes."""
    a, b = a.flatten(1), b.flatten(1)
    vanishing = torch.finfo(a.dtype).tiny ** 0.5  # below, 1/‖a‖² is infinite
    scales = [v.detach().abs().amax(1, keepdim=True) for v in (a, b)]
    defined = torch.stack(scales).amin(0) > vanishing
    a, b = (torch.where(defined, v / scale.where(defined, 1), 1.0) for v, scale in zip((a, b), scales, strict=True))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
