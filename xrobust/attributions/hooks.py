"""Forward hooks on every module of a network, which leave no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

Hook = Callable[[str, nn.Module, tuple[Any, ...], Any], Any]
"""(path, module, inputs, output) → what takes the output's place, or None to keep it."""

Watch = Callable[[str, Tensor], None]
"""(path of the module whose own code made it, tensor)."""


@contextmanager
def hooked(model: nn.Module, hook: Hook, watch: Watch | None = None) -> Iterator[None]:
    """The hook sees each call of each module, the inner modules first; on leaving, also by an error, it is gone.

    In-place activations work out of place inside, because they would overwrite what the hook is to see. The path of
    the model itself is "".

    Args:
        watch: is shown what passes from module to module. What enters a module was made by the one around it since
            its last call of another; what leaves it (after the hook) by the module itself.
    """

    def enter(path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        _show(watch, path.rpartition(".")[0], inputs)

    def leave(path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
        replaced = hook(path, module, inputs, output)
        _show(watch, path, (output if replaced is None else replaced,))
        return replaced

    with ExitStack() as stack:
        for path, module in model.named_modules():
            if "parametrizations" in path.split("."):
                continue  # what computes a weight is no layer
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
                stack.callback(setattr, module, "inplace", True)
            stack.callback(module.register_forward_pre_hook(partial(enter, path)).remove)
            stack.callback(module.register_forward_hook(partial(leave, path)).remove)
        yield


def _show(watch: Watch | None, path: str, values: tuple[Any, ...]) -> None:
    for value in values:
        if watch is not None and isinstance(value, Tensor):
            watch(path, value)


def described(model: nn.Module, path: str) -> str:
    """A module for a message: "layers.conv1 (Conv2d)"."""
    return f"{path or 'the model itself'} ({type(model.get_submodule(path)).__name__})"
