"""Activations by name: any activation module of torch, and MinMax."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as torch_activations

from xrobust.errors import UserError

Activation = str | Mapping[str, object]


class MinMax(nn.Module):
    """Sorts each pair of neighbouring channels: (a, b) → (min(a, b), max(a, b)).

    1-Lipschitz and gradient-norm preserving: GroupSort with groups of two (Anil et al. 2019).

    Where a = b, the gradient is that of the identity. Shapes: (N, C, ...) → (N, C, ...) with even C.
    """

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, 0::2], x[:, 1::2]
        swap = (first > second).to(x.dtype)
        # Exact for weights 0 and 1, and differentiated in a third of the time of minimum and maximum.
        return torch.stack([torch.lerp(first, second, swap), torch.lerp(second, first, swap)], 2).flatten(1, 2)


def make_activation(spec: Activation = "relu") -> nn.Module:
    """A new activation module: "relu", "gelu", "silu", ... or {"name": "softplus", "beta": 10}.

    The name is that of a class in `torch.nn.modules.activation` (or "minmax"), in any case, with or without
    underscores; further keys are its arguments. Each call returns a new module: hooks and relevance rules
    need one for each place.

    Raises:
        UserError: for an unknown name, arguments that it does not take, or a module that changes the shape.
    """
    options = dict(spec) if isinstance(spec, Mapping) else {"name": spec}
    name = options.pop("name", None)
    classes = _classes()
    plain = str(name).lower().replace("_", "")
    kind = classes.get(plain)
    if kind is None:
        close = get_close_matches(plain, classes, 1)
        hint = f", did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(classes))}"
        raise UserError(f"model.activation={name!r} is not an activation{hint}")
    try:
        module = kind(**options)
        keeps_shape = module(torch.zeros(1, 2, 1, 1)).shape == (1, 2, 1, 1)
    except (TypeError, RuntimeError) as error:
        raise UserError(f"model.activation={name!r} does not take {options}: {error}") from None
    if not keeps_shape:
        raise UserError(f"model.activation={name!r} changes the shape of what it is given")
    return module


def _classes() -> dict[str, type[nn.Module]]:
    of_torch = {name: getattr(torch_activations, name) for name in torch_activations.__all__}
    return {name.lower(): kind for name, kind in {**of_torch, "MinMax": MinMax}.items()}
