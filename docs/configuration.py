"""The page of the configuration, from the files in conf/: each group, its options, and what they build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from reference import Tree

HEAD = """# Configuration

Every option is a file in `conf/`: a folder is a group, and a file in it is a choice, as in `defense=trades`. Its keys
are the parameters of the class that it names, and each can be set in its place, as in `defense.beta=1`. A group whose
default is a list takes several, as in `metrics=[gini_index,entropy]`. This page is generated from the files.
"""


def configuration_page(root: Path) -> str:
    """Markdown: for each group where it is used, and a table of its options."""
    conf, tree, parts = root / "conf", Tree(root), [HEAD]
    for folder in sorted(folder for folder in conf.rglob("*") if any(folder.glob("*.yaml")) and folder.name != "hydra"):
        group = folder.relative_to(conf).as_posix()
        uses = sorted(set(_uses(conf, group)))
        parts.append(f"## {group}\n")
        if uses:
            parts.append("\n".join(f"- {use}" for use in uses) + "\n")
        parts.append("| option | what it is | what it builds |\n|---|---|---|")
        parts += [_row(file, tree) for file in sorted(folder.glob("*.yaml"))]
        parts.append("")
    return "\n".join(parts)


def _uses(conf: Path, group: str) -> Iterator[str]:
    """The main configurations that have the group in their defaults, and what they choose of it."""
    for file in sorted(conf.glob("*.yaml")):
        for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["defaults"]:
            for key, chosen in entry.items() if isinstance(entry, dict) else ():
                name = key.removeprefix("optional ")
                if name.partition("@")[0] == group:
                    yield f"`{name}` in `conf/{file.name}`: {_chosen(chosen)}"


def _chosen(chosen: str | list[str] | None) -> str:
    if isinstance(chosen, list):
        return f"a list, {len(chosen)} by default" if len(chosen) > 3 else f"a list, `[{','.join(chosen)}]` by default"
    return "none by default" if chosen is None else f"`{chosen}` by default"


def _row(file: Path, tree: Tree) -> str:
    text = file.read_text(encoding="utf-8")
    comments = [line for line in re.findall(r"^# *(.*)", text, re.MULTILINE) if not line.startswith("@package")]
    about = comments[0].replace("|", r"\|").replace("<", r"\<").replace("*", r"\*") if comments else ""
    return f"| `{file.stem}` | {about} | {', '.join(map(tree.link, targets(text)))} |"


def targets(text: str) -> list[str]:
    """What a file of the configuration builds: its own `_target_`, or those of its entries; none if it only chooses."""
    content = yaml.safe_load(text) or {}
    nodes = [] if "@package _global_" in text else [content] if "_target_" in content else content.values()
    return [node["_target_"] for node in nodes if isinstance(node, dict) and "_target_" in node]
