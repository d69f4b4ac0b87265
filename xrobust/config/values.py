"""Find values that are not of the type their parameter is annotated with."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import os
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from xrobust.config.check import HYDRA_KEYS, parameters_of, resolve_target, targets_below
from xrobust.errors import UserError

SCALARS: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}


def check_values(node: Any, place: str) -> None:
    """Check every value below a plain container against the annotation of its parameter.

    What builds an object (a mapping with a `_target_`) is taken for one of the right type.

    Raises:
        UserError: naming the dotted path, the type and the value.
    """
    for path, mapping in targets_below(node, place):
        target = resolve_target(mapping["_target_"], path)
        named, _ = parameters_of(target)
        for key, value in mapping.items():
            if key not in HYDRA_KEYS and key in named:
                require(f"{path}.{key}", annotation_of(target, named[key]), value)


def require(place: str, annotation: Any, value: Any) -> None:
    """Refuse a value that the annotation does not mean, or the first such value of a mapping.

    Raises:
        UserError: naming the place, the type and the value.
    """
    if accepts(annotation, value):
        return
    inner = get_args(annotation)
    if isinstance(value, Mapping) and is_mapping(get_origin(annotation)):
        for name, below in value.items():
            require(f"{place}.{name}", inner[1], below)
    raise UserError(f"{place} must be {said(annotation)}, got {'null' if value is None else repr(value)}")


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a plain value, as YAML has it, can be meant by an annotation."""
    if isinstance(value, Mapping) and "_target_" in value:
        return True
    origin, inner = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(accepts(each, value) for each in inner)
    if origin is Literal:
        return value in inner
    if origin in SCALARS:
        return isinstance(value, SCALARS[origin]) and (origin is bool or not isinstance(value, bool))
    if is_path(origin):
        return isinstance(value, str)
    if origin is types.NoneType:
        return value is None
    if is_mapping(origin):
        return isinstance(value, Mapping) and all(accepts(each, v) for each in inner[1:] for v in value.values())
    if is_sequence(origin):
        if not isinstance(value, list | tuple):
            return False
        if origin is tuple and inner and Ellipsis not in inner:
            return len(value) == len(inner) and all(map(accepts, inner, value))
        return all(accepts(each, v) for each in inner[:1] for v in value)
    return origin in (Any, object) or not isinstance(origin, type)


def is_path(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, os.PathLike)


def is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, collections.abc.Mapping)


def is_sequence(origin: Any) -> bool:
    return origin in (collections.abc.Iterable, collections.abc.Collection) or (
        isinstance(origin, type) and issubclass(origin, collections.abc.Sequence | collections.abc.Set)
    )


def annotation_of(target: Any, parameter: inspect.Parameter) -> Any:
    """The annotation as an object; `Any` in the place of what is there for type checkers alone."""
    if not isinstance(parameter.annotation, str):
        return Any if parameter.annotation is parameter.empty else parameter.annotation
    bases = getattr(target, "__mro__", ())
    fields = [base for base in bases if parameter.name in vars(base).get("__annotations__", {})]
    arguments = [base for base in bases if parameter.name in getattr(vars(base).get("__init__"), "__annotations__", {})]
    module = sys.modules[[*fields, *arguments, target][0].__module__]
    try:
        return eval(parameter.annotation, {}, _Names(vars(module)))
    except (TypeError, AttributeError):  # `Any[…]`, `Any.…`
        return Any


class _Names(dict[str, Any]):
    """The names of a module; a name that only type checkers import is `Any`."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, Any)


def said(annotation: Any) -> str:
    """An annotation in words: "int or null", "a list of float"."""
    origin, inner = get_origin(annotation) or annotation, get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(said, inner)))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin is types.NoneType:
        return "null"
    if is_path(origin):
        return "a path"
    if is_mapping(origin):
        return f"a mapping of names to {said(inner[1])}" if inner else "a mapping"
    if origin is not str and is_sequence(origin):
        kinds = dict.fromkeys(said(each) for each in inner if each is not ...)
        return f"a list of {' and '.join(kinds)}" if kinds else "a list"
    return getattr(origin, "__name__", str(origin))
