"""ReLU networks made smooth for a moment: their maps have no slope to follow, a softplus network's have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def smoothed(model: nn.Module, beta: float | None) -> Iterator[None]:
    """Inside, the model computes softplus_β(u) = log(1 + exp(βu)) / β wherever it would compute ReLU(u).

    The second derivative of a ReLU network with respect to its input is zero almost everywhere, so that a gradient
    step on a map goes nowhere; softplus tends to ReLU for β → ∞ and has one (Dombrowski et al. 2019). A leaky ReLU of
    slope s becomes s·u + (1 − s)·softplus_β(u). Other activations stay as they are.

    It reaches modules and functions alike, but not compiled or scripted models. Only the model's own forward pass is
    touched, not what a caller computes around it; nothing in the model is replaced or copied.

    Args:
        model: the network; its own forward pass must be called, not those of its parts.
        beta: β > 0; none leaves the model alone.
    """
    if beta is None:
        yield
        return
    mode = _SoftplusForReLU(beta)

    def begin(*_: Any) -> None:
        mode.__enter__()

    def end(*_: Any) -> None:
        mode.__exit__(None, None, None)

    hooks = [model.register_forward_pre_hook(begin), model.register_forward_hook(end, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _SoftplusForReLU(TorchFunctionMode):
    """Answers calls of ReLU functions, which is what ReLU modules call."""

    def __init__(self, beta: float):
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        smooth = self.relu if function in _RELU else self.leaky_relu if function in _LEAKY_RELU else None
        if smooth is None:
            return function(*args, **(kwargs or {}))
        options = dict(kwargs or {})
        in_place = options.pop("inplace", function in _IN_PLACE)
        u, *rest = args
        # Softplus has to remember u for its gradient, so what is written into must be another tensor.
        return u.copy_(smooth(u.clone(), *rest, **options)) if in_place else smooth(u, *rest, **options)

    def relu(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta)

    def leaky_relu(self, input: Tensor, negative_slope: float = 0.01) -> Tensor:
        return negative_slope * input + (1 - negative_slope) * F.softplus(input, self.beta)


_IN_PLACE = (torch.relu_, Tensor.relu_, F.leaky_relu_)
_RELU = (F.relu, torch.relu, Tensor.relu, *_IN_PLACE[:2])
_LEAKY_RELU = (F.leaky_relu, F.leaky_relu_)
