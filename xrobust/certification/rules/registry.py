"""From the calls in a traced network to operations: each rule says which calls it is for."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import Size, Tensor, nn

from xrobust.certification.operation import Operation
from xrobust.errors import UserError

Statistics = Mapping[str, tuple[Tensor, Tensor]]  # the path of a batch norm → mean and variance for each channel


class UnsupportedOperation(UserError):
    """A network computes something that no bound is known for."""


@dataclass(frozen=True)
class Input:
    """Stands among a call's arguments for a tensor that depends on the image.

    Attributes:
        position: which of the operation's inputs.
        shape: without the batch.
    """

    position: int
    shape: Size


@dataclass(frozen=True)
class Call:
    """One call in a traced network.

    Attributes:
        where: the path of the module that it is in.
        what: the operation, as text.
        module: the module that is called, if it is one.
        args, kwargs: constants, and an `Input` for each tensor that depends on the image.
        shape: of the result, without the batch.
        statistics: of the batch, for batch norms in training mode.
    """

    where: str
    what: str
    module: nn.Module | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shape: Size
    statistics: Statistics = field(default_factory=dict)

    def bound(self, **defaults: Any) -> dict[str, Any]:
        """The arguments by name: positional ones in the order of `defaults`, then those given by name."""
        names = list(defaults)
        if len(self.args) > len(names) or not self.kwargs.keys() <= defaults.keys():
            raise self.unsupported("these arguments")
        return {**defaults, **dict(zip(names, self.args, strict=False)), **self.kwargs}

    def inputs(self) -> tuple[Size, ...]:
        """The shapes of the inputs, in order; they must be the first arguments."""
        shapes = tuple(each.shape for each in self.args if isinstance(each, Input))
        if not all(isinstance(each, Input) for each in self.args[: len(shapes)]):
            raise self.unsupported("a constant before an input")
        return shapes

    def unsupported(self, detail: str = "") -> UnsupportedOperation:
        """The error for a call that cannot be bounded."""
        with_detail = f" with {detail}" if detail else ""
        return UnsupportedOperation(f"no bound is known for {self.what}{with_detail}, at {self.where!r} of the model")


Builder = Callable[[Call], Operation]
_RULES: dict[Any, Builder] = {}


def rule(*targets: Any) -> Callable[[Builder], Builder]:
    """Declare the builder of an operation for module types, functions, and methods of tensors by their names."""

    def declare(builder: Builder) -> Builder:
        _RULES.update(dict.fromkeys(targets, builder))
        return builder

    return declare


@cache
def _import_rules() -> None:
    package = importlib.import_module("xrobust.certification.rules")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def builder_for(target: Any) -> Builder | None:
    """The rule for a module type (exactly that type: a subclass may compute something else), function or method."""
    _import_rules()
    return _RULES.get(target)


def named(target: Any) -> str:
    """A module type, function or method in words."""
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))


def supported() -> dict[str, str]:
    """The names of all operations that have a rule, and the module of the rule."""
    _import_rules()
    return {
        f"{'module' if inspect.isclass(key) else 'call'} {named(key)}": value.__module__
        for key, value in _RULES.items()
    }
