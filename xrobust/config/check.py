"""Find every mistake in a configuration before anything is built: the signature walk."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from xrobust.errors import UserError

# What a configuration may call. A `_target_` is code; nothing outside these prefixes is ever imported for one.
ALLOWED_PREFIXES = (
    "xrobust.",
    "callbacks.",
    "torch.optim.",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.loggers.",
    "pytorch_lightning.callbacks.",
)
HYDRA_KEYS = frozenset({"_target_", "_partial_", "_recursive_", "_convert_", "_args_"})


def did_you_mean(word: str, known: Collection[str]) -> str:
    """ ", did you mean 'steps'?", or nothing when no known word is near; dotted paths may differ in one name."""
    nearness, near = max(((_nearness(word, other), other) for other in known), default=(0.0, ""))
    return f", did you mean {near!r}?" if nearness > 0.6 else ""


def _nearness(word: str, other: str) -> float:
    """In [0, 1]; 0 for dotted paths that differ in no name or in several."""
    names, others = word.split("."), other.split(".")
    unequal = [pair for pair in zip(names, others, strict=False) if pair[0] != pair[1]]
    if len(names) != len(others) or len(unequal) != 1:
        return 0.0
    return difflib.SequenceMatcher(None, *unequal[0]).ratio()


def resolve_target(target: str, place: str) -> Any:
    """The object that a `_target_` names, if the allowlist has it.

    Raises:
        UserError: if the name is outside the allowlist or does not exist.
    """
    if not isinstance(target, str) or not target.startswith(ALLOWED_PREFIXES):
        allowed = ", ".join(prefix + "*" * prefix.endswith(".") for prefix in ALLOWED_PREFIXES)
        raise UserError(f"{place}._target_={target}: a configuration may only name {allowed}")
    parts = target.split(".")
    for split in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError as error:
            if error.name is None or not target.startswith(error.name):
                raise  # a dependency of the module is missing, which is not a spelling mistake
            continue
        for name in parts[split:]:
            if not hasattr(found, name):
                known = [known for known in dir(found) if not known.startswith("_")]
                raise UserError(f"{place}._target_={target} does not exist{did_you_mean(name, known)}")
            found = getattr(found, name)
        return found
    raise UserError(f"{place}._target_={target} does not exist")


def parameters_of(target: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The named parameters of a callable, and whether it takes any further keyword.

    A class whose `__init__` hands `**rest` on has the parameters of the next `__init__` up its bases as well.
    """
    chain = [target]
    if inspect.isclass(target):
        chain = [vars(base)["__init__"] for base in target.__mro__ if "__init__" in vars(base)]
    named: dict[str, inspect.Parameter] = {}
    for function in chain:
        parameters = inspect.signature(function).parameters
        rest = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name, parameter in parameters.items():
            if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                named.setdefault(name, parameter)
        if not rest:
            return named, False
    return named, True


def check_config(node: Any, place: str, provided: Collection[str] = ()) -> None:
    """Check each `_target_` below a plain container: every key a parameter, every required parameter present.

    Args:
        node: a resolved, plain container.
        place: its dotted path, for the message.
        provided: parameters of the outermost target that the program itself passes.

    Raises:
        UserError: naming the dotted path and the nearest valid name.
    """
    for path, mapping in targets_below(node, place):
        target = resolve_target(mapping["_target_"], path)
        given = set(provided) if path == place else set()
        named, open_ended = parameters_of(target)
        keys = [key for key in mapping if key not in HYDRA_KEYS]
        for key in keys:
            if key in given:
                raise UserError(f"{path}.{key}={mapping[key]!r} is not for the configuration: the program gives it")
            if key not in named and not open_ended:
                allowed = ", ".join(sorted(named.keys() - given))
                raise UserError(
                    f"{path}.{key}={mapping[key]!r} is not a parameter of {mapping['_target_']}"
                    f"{did_you_mean(key, named) or ','} allowed: {allowed}"
                )
        if mapping.get("_partial_"):
            continue
        for name in named.keys() - given - set(keys):
            if named[name].default is inspect.Parameter.empty:
                raise UserError(f"{path}.{name} is missing: {mapping['_target_']} needs it")


def targets_below(node: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a `_target_` in a plain container, and its dotted path."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield place, node
        for key, value in node.items():
            yield from targets_below(value, f"{place}.{key}")
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from targets_below(value, f"{place}[{i}]")


# What train.py itself passes to a group's target.
PROVIDED = {"trainer": ("callbacks", "logger"), "defense": ("model", "optimizer", "schedule", "seed")}


def check_run(config: Mapping[str, Any]) -> None:
    """`check_config` for every group of a command's configuration."""
    for group, node in config.items():
        check_config(node, group, PROVIDED.get(group, ()))
