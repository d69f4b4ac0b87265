"""A model inside another function of images."""

from __future__ import annotations

from copy import copy

from torch import Tensor, nn


class WrappedModel(nn.Module):
    """The base of functions g that call a given model f, whose submodules keep their names.

    So a method that explains a layer finds it by the same path. `self.inner(x)` is f in eval mode; the model
    itself is not changed.
    """

    inner: nn.Module

    def __init__(self, model: nn.Module):
        super().__init__()
        inner = copy(model)  # shares all but its own mode
        inner.training = False
        object.__setattr__(self, "inner", inner)  # no submodule: those of the model are
        for name, module in model.named_children():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError
