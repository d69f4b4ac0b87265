"""What the files of conf/ offer, whether they are chosen or not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from xrobust.errors import UserError


def refuse_values(conf: Path, arguments: Sequence[str]) -> None:
    """Refuse several choices of a group that takes one, and what is no name of a choice.

    Raises:
        UserError: naming the group and how it is given.
    """
    for argument in arguments:
        given = re.fullmatch(r"\+*((\w+)(?:@[\w.]+)?)=(\[(.*)\]|null|true|false|[-+.\d]+)", argument)
        if not given or not (conf / given[2]).is_dir():
            continue
        name, listed = given[1], given[4]
        if listed is None:
            raise UserError(
                f"{argument} is no choice: {name} takes a name, as in {name}=<name>; without it the default"
            )
        if _takes_one(conf / given[2]):
            each = f"; -m {name}={listed} makes a run of each" if "," in listed else ""
            raise UserError(f"{argument} is a list, but {name} takes one choice, as in {name}=<name>{each}")


def owner_of(conf: Path, config_name: str, key: str) -> str | None:
    """Which choices would have a dotted key that the configuration does not have, as a sentence; None if no one has."""
    several, one = [], dict[str, list[str]]()
    for mount, package, file in _choices(conf, config_name):
        text = file.read_text(encoding="utf-8")
        if key.startswith(f"{package}.") and _has(text, key[len(package) + 1 :]):
            if _takes_one(file.parent):
                one.setdefault(mount, []).append(file.stem)
            else:
                several.append(f"{key} belongs to {mount}={file.stem}, which is not chosen: {mount}=[…,{file.stem}]")
    if several:
        return several[0]
    for mount, names in one.items():
        more = ", …" * (len(names) > 4)
        return f"{key} is not a key of the chosen {mount}; those that have it: {', '.join(names[:4])}{more}"
    return None


def help_text(conf: Path, config_name: str) -> str:
    """The command's own file, which says what each key means, and the choices of its groups."""
    groups: dict[str, list[str]] = {}
    for mount, _, file in _choices(conf, config_name):
        groups.setdefault(mount, []).append(file.stem)
    written = (conf / f"{config_name}.yaml").read_text(encoding="utf-8")
    choices = "".join(f"{mount}: {', '.join(names)}\n" for mount, names in groups.items())
    listed = f"# Choices, as in <group>=<choice>\n{choices}\n" if choices else ""
    return f"{written}\n{listed}# --cfg job shows the whole configuration"


def _choices(conf: Path, config_name: str) -> Iterator[tuple[str, str, Path]]:
    """Each file of a group that the command knows: how it is chosen, the package of its keys, the file."""
    entries = OmegaConf.to_container(OmegaConf.load(conf / f"{config_name}.yaml").defaults)  # type: ignore[union-attr]
    for mount in [next(iter(entry)) for entry in entries if isinstance(entry, Mapping)]:  # type: ignore[union-attr]
        group, _, at = mount.removeprefix("override ").partition("@")
        for file in sorted((conf / group).glob("*.yaml")):
            header = re.match(r"# @package (\S+)", file.read_text(encoding="utf-8"))
            yield f"{group}@{at}" if at else group, at or (header[1] if header else group), file


def _takes_one(group: Path) -> bool:
    """Whether the files of a group describe an object, rather than one by name that stands beside others."""
    return any(re.search(r"^_target_:", file.read_text(encoding="utf-8"), re.M) for file in group.glob("*.yaml"))


def _has(text: str, path: str) -> bool:
    node: Any = OmegaConf.to_container(OmegaConf.create(text))
    for name in path.split("."):
        if not isinstance(node, Mapping) or name not in node:
            return False
        node = node[name]
    return True
