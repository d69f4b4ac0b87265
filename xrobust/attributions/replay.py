"""Two forward passes: one that records what each layer does, one in which layers are linear as a rule says.

The gradient of the second is a back-propagation by rules: what flows back through a layer is what its linear stand-in
passes, through residual sums as autograd passes it. As the rule's factors come from the first pass, they can be
differentiated themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from xrobust.attributions.graph import LinearReader
from xrobust.attributions.hooks import described, hooked
from xrobust.errors import UserError
from xrobust.frame import logits_of

ELEMENTWISE = (
    nn.CELU,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.PReLU,
    nn.ReLU,
    nn.RReLU,
    nn.SELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)
MAX_POOLING = (nn.MaxPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer: a module without submodules, or one whose weights are parametrised."""

    path: str
    module: nn.Module
    input: Tensor
    output: Tensor


def recorded(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Call]]:
    """The logits and all calls of layers, in order."""
    calls: list[Call] = []

    def note(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        if not _is_layer(module, inputs, output):
            return None
        calls.append(Call(path, module, inputs[0], output))
        return output.clone()  # what follows may write into it

    with hooked(model, note):
        return logits_of(model, x), calls


Substitute = Callable[[int, Tensor], Tensor | None]
"""(number of the call, signal into it) → the linear stand-in's output, or None for the layer itself."""


def replayed(
    model: nn.Module, signal: Tensor, calls: list[Call], substitute: Substitute, reader: LinearReader, method: str
) -> Tensor:
    """The forward pass of a signal in which stand-ins take the place of layers.

    Raises:
        UserError: if something that depends on a source of the reader is not linear, or the calls differ from those
            recorded; it names the module and the method.
    """
    done = 0

    def replace(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        nonlocal done
        if not _is_layer(module, inputs, output):
            return None
        if done == len(calls) or calls[done].module is not module:
            raise UserError(f"{method} needs a model that calls the same layers each time, {path} breaks it")
        done += 1
        return substitute(done - 1, inputs[0])

    def check(path: str, made: Tensor) -> None:
        if (name := reader.nonlinear(made)) is not None:
            raise UserError(f"{method} has no rule for {name} in {described(model, path)}")

    with hooked(model, replace, check):
        return logits_of(model, signal)


def winners(module: nn.Module, h: Tensor) -> Tensor:
    """Where each maximum of a max pooling lies: (N, K, h', w') indices into the flattened h × w."""
    if isinstance(module, nn.AdaptiveMaxPool2d):
        return F.adaptive_max_pool2d(h, module.output_size, return_indices=True)[1]  # type: ignore[call-overload]
    assert isinstance(module, nn.MaxPool2d)
    return F.max_pool2d(
        h,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        ceil_mode=module.ceil_mode,
        return_indices=True,
    )[1]


def taken(h: Tensor, places: Tensor) -> Tensor:
    """The entries of h at the places that `winners` gave."""
    return h.flatten(2).gather(2, places.flatten(2)).view_as(places)


def _is_layer(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> bool:
    single = len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
    return single and (not any(module.children()) or isinstance(module, nn.Linear | nn.Conv2d))
