"""Which runs belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xrobust.comparison.run import Run
from xrobust.errors import UserError

Naming = Callable[[str, Mapping[str, Any]], str]
"""(key of the configuration, a node with a `_target_`) → the name of the choice that it is."""

ALL = "all runs"
# Keys in which runs of a group may differ: the seed, places, and what does not change the result.
MAY_DIFFER = ("seed", "folder", "dirpath", "save_dir", "root", "run_dir", "resume", "debug", "logger", "evaluate")
SHOWN = 5


def grouped(runs: Sequence[Run], keys: Sequence[str], naming: Naming) -> dict[str, list[Run]]:
    """The runs by the values of some keys of their configurations, groups in the order of their first run.

    The key `defense` stands for the training method with its regularisers; other keys are dotted paths. Without keys
    all runs are one group.

    Raises:
        UserError: if a run's configuration lacks a key.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        name = " ".join(_part(run, key, naming) for key in keys) or ALL
        groups.setdefault(name, []).append(run)
    return groups


def differences(group: str, runs: Sequence[Run]) -> list[str]:
    """A warning if the configurations of a group's runs differ in more than seeds and places."""
    leaves = [dict(_leaves(run.config)) for run in runs]
    keys = dict.fromkeys(key for leaf in leaves for key in leaf)
    unlike = [key for key in keys if len({str(leaf.get(key)) for leaf in leaves}) > 1]
    unlike.sort(key=lambda key: key.count("."))
    if not unlike:
        return []
    told = [f"{key} ({', '.join(dict.fromkeys(str(leaf.get(key)) for leaf in leaves))})" for key in unlike[:SHOWN]]
    more = f" and {len(unlike) - SHOWN} more keys" if len(unlike) > SHOWN else ""
    return [
        f"The runs of the group {group} are not repetitions of one another: they differ in {', '.join(told)}{more}."
    ]


def _part(run: Run, key: str, naming: Naming) -> str:
    node: Any = run.config
    for name in key.split("."):
        if not isinstance(node, Mapping) or name not in node:
            raise UserError(f"group={key}: the configuration of the run {run.name} has no such key")
        node = node[name]
    if isinstance(node, Mapping):
        node = naming(key, node) if "_target_" in node else ", ".join(node)
    if key == "defense":
        regularizers = run.config.get("regularizers")
        return " + ".join([str(node), *(regularizers if isinstance(regularizers, Mapping) else [])])
    return f"{key.rpartition('.')[2]}={node}"


def _leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if place.rpartition(".")[2] in MAY_DIFFER:
        return
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{place}.{key}".lstrip("."))
    else:
        yield place, node
