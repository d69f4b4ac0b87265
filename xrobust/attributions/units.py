"""The inside of a model as something to explain: units of a layer, found by its dotted path.

A unit is a channel of a convolution's output (N, C, H, W), a feature of tokens (N, T, D), or a feature of a dense
layer's output (N, D). What it does is summed over positions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from xrobust.errors import UserError


class UnitOutputs(nn.Module):
    """Images → the outputs of a layer's units, summed over positions: (N, C, H, W) → (N, units).

    Args:
        model: images → logits.
        layer: the dotted path of a module that runs once in a forward pass.

    Raises:
        UserError: if there is no such layer, it does not run once, or its output has no units.
    """

    def __init__(self, model: nn.Module, layer: str):
        super().__init__()
        self.model, self.path = model, layer
        self.layer = find_layer(model, layer)

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        # Summed at once, for a later layer may work in place.
        with _hooked(self.layer, lambda output: outputs.append(_summed(output, self.path))):
            self.model(x)
        if len(outputs) != 1:
            raise UserError(f"layer {self.path!r} must run once in a forward pass, it ran {len(outputs)} times")
        return outputs[0]


class UnitOffsets(nn.Module):
    """Images with an offset for each unit → logits of the model whose units are raised by the offsets.

    The gradient with respect to an offset is that with respect to the unit, summed over positions. Both are one
    flat vector for each image, so that everything that works on images works on them.

    Args:
        model: images → logits.
        layer: see `UnitOutputs`.
        image_shape: (C, H, W).
    """

    def __init__(self, model: nn.Module, layer: str, image_shape: torch.Size):
        super().__init__()
        self.model, self.path, self.image_shape = model, layer, image_shape
        self.layer = find_layer(model, layer)

    @staticmethod
    def pack(x: Tensor, units: int) -> Tensor:
        """The image and offsets of zero: (N, C, H, W) → (N, C·H·W + units)."""
        return torch.cat([x.flatten(1), x.new_zeros(len(x), units)], 1)

    def forward(self, packed: Tensor) -> Tensor:
        entries = prod(self.image_shape)
        x, offsets = packed[:, :entries].unflatten(1, self.image_shape), packed[:, entries:]

        def raised(output: Tensor) -> Tensor:
            shape = [1] * output.dim()
            shape[0], shape[_unit_axis(output, self.path)] = offsets.shape
            return output + offsets.view(shape)

        with _hooked(self.layer, raised):
            return self.model(x)


def find_layer(model: nn.Module, path: str) -> nn.Module:
    """The module of that dotted path below the model.

    Raises:
        UserError: naming the nearest paths, if there is none.
    """
    layers = {name: layer for name, layer in model.named_modules() if name}
    if path not in layers:
        nearest = difflib.get_close_matches(path, layers, n=3, cutoff=0.0)
        raise UserError(f"the model has no layer {path!r}, the nearest are {', '.join(map(repr, nearest)) or 'none'}")
    return layers[path]


@contextmanager
def _hooked(layer: nn.Module, look: Callable[[Any], Any]) -> Iterator[None]:
    """While inside, `look` sees each output of the layer, and what it returns, if anything, replaces the output."""
    handle = layer.register_forward_hook(lambda module, inputs, output: look(output))
    try:
        yield
    finally:
        handle.remove()


def _unit_axis(output: Any, path: str) -> int:
    if not isinstance(output, Tensor) or output.dim() not in (2, 3, 4):
        given = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(f"layer {path!r} must return (N, C, H, W), (N, T, D) or (N, D), got {given}")
    return 2 if output.dim() == 3 else 1


def _summed(output: Any, path: str) -> Tensor:
    """Σ over positions: (N, …) → (N, units)."""
    axis = _unit_axis(output, path)
    return output.movedim(axis, -1).unsqueeze(1).flatten(1, -2).sum(1)
