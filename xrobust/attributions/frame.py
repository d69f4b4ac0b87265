"""The frame in which a model is explained: as evaluation sees it, and leaving no trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def explaining(model: nn.Module, x: Tensor, *, parameter_gradients: bool = False) -> Iterator[None]:
    """Eval mode, autograd on, inference mode and autocast off; on leaving, everything is as it was.

    Every submodule gets the mode back that it had, and every parameter its `requires_grad` flag. Unless
    `parameter_gradients`, the parameters are constants inside, so that `.grad` cannot change.
    """
    modes = [(module, module.training) for module in model.modules()]
    constants = [] if parameter_gradients else [p for p in model.parameters() if p.requires_grad]
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        try:
            model.eval()
            for parameter in constants:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in constants:
                parameter.requires_grad_(True)
            for module, training in modes:
                module.training = training


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """f(x) in the precision of x, whatever the precision of the weights: (N, ...) → (N, K)."""
    weight = next((p for p in model.parameters() if p.is_floating_point()), x)
    return model(x.to(weight.dtype)).to(x.dtype)
