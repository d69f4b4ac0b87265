"""Losses that contain gradients with respect to the images, and are differentiated once more."""

from __future__ import annotations

import pytorch_lightning as pl
import torch

from xrobust.errors import UserError


def refuse_compiled(defense: pl.LightningModule, name: str | None = None) -> None:
    """Refuse a compiled model, or a compiled training step: `torch.compile` cannot differentiate twice.

    Args:
        defense: the training method.
        name: what differentiates twice; the method itself if none is given.

    Raises:
        UserError: naming it.
    """
    compiled = getattr(defense, "_compiler_ctx", None) is not None or any(
        isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None
        for module in defense.modules()
    )
    if compiled:
        raise UserError(
            f"{name or type(defense).__name__} differentiates a gradient, which torch.compile cannot do: give it the "
            "model without torch.compile"
        )
