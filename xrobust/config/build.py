"""From a checked configuration to objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from yaml import YAMLError

from xrobust.config.check import check_config
from xrobust.config.values import check_values
from xrobust.errors import UserError, at_place
from xrobust.files import replace_file


def plain(cfg: Any) -> dict[str, Any]:
    """The resolved configuration as plain dicts, lists and scalars.

    Raises:
        UserError: if a mandatory value is missing or an interpolation cannot be resolved.
    """
    missing = list(_missing(OmegaConf.to_container(cfg)))
    if missing:
        raise UserError(f"{', '.join(missing)} must be given on the command line, as in {missing[0]}=…")
    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except InterpolationKeyError as error:
        key = str(error).partition("'")[2].partition("'")[0]
        owner = key.rpartition(".")[0]
        lacks = f"which this {owner} does not have" if owner else "which is not a key of this configuration"
        raise UserError(f"{error.full_key} takes its value from {key}, {lacks}") from error
    except OmegaConfBaseException as error:
        group = re.search(r"node `(\w+)` is not a container", str(error))
        if group:
            raise UserError(f"{group[1]}=… must be given: {error.full_key} takes its value from it") from error
        raise UserError(str(error).replace("\n", " ")) from error


def _missing(node: Any, place: str = "") -> Iterator[str]:
    """The dotted paths of the mandatory values that nobody gave."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _missing(value, f"{place}.{key}".lstrip("."))
    elif node == "???":
        yield place


def build(node: Any, place: str, **provided: Any) -> Any:
    """Build what a configuration node describes.

    Args:
        node: a plain container with a `_target_`.
        place: its dotted path, for messages.
        provided: arguments that the program passes (they are not part of the configuration).

    Raises:
        UserError: for a wrong key, a `_target_` outside the allowlist, a value that the target refuses or that is not
            of its parameter's type, or a file that cannot be had.
    """
    check_config(node, place, provided)
    try:
        made = instantiate({**node, "_partial_": True}, _convert_="all")
        made = made if node.get("_partial_") else made(**provided)
    except Exception as error:
        cause: BaseException = error
        below = None
        if isinstance(error, InstantiationException):
            cause, below = error.__cause__ or error, re.search(r"full_key: (\S+)", str(error))
        if not isinstance(cause, UserError):
            check_values(node, place)
        if not isinstance(cause, ValueError | TypeError | OSError):
            raise cause from None
        raise at_place(f"{place}.{below[1]}" if below else place, cause) from error
    check_values(node, place)
    return made


def build_all(nodes: dict[str, Any], place: str, **provided: Any) -> dict[str, Any]:
    """`build` for each entry of a group that holds several.

    Raises:
        UserError: as `build`, and for an entry of which settings are given, but which was not chosen.
    """
    for name, node in nodes.items():
        if isinstance(node, dict) and "_target_" not in node:
            raise UserError(
                f"{place}.{name} has settings, but is not chosen: add it to {place}=[…], or ~{place}.{name}"
            )
    return {name: build(node, f"{place}.{name}", **provided) for name, node in nodes.items() if node is not None}


def save_yaml(config: dict[str, Any], path: Any) -> None:
    """Write a plain configuration as YAML, beside and renamed."""
    replace_file(Path(path), OmegaConf.to_yaml(OmegaConf.create(config)))


def load_yaml(path: Any) -> dict[str, Any]:
    """Read what `save_yaml` wrote.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        loaded = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} is damaged: it must hold a mapping")
    return plain(loaded)
