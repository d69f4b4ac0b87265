"""From a resolved configuration back to the name of the choice that it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf


def choice_name(conf: Path, group: str, node: Mapping[str, Any]) -> str:
    """The file of `conf/<group>/` with the node's `_target_`, or the name of its class if no file has it.

    Of several, the one from whose plain values the node departs least; of equals, the one with which it shares most.
    """
    target = str(node["_target_"])
    scores = {}
    for file in sorted((conf / group).glob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        written = OmegaConf.to_container(OmegaConf.create(text)) if target in text else None
        if isinstance(written, dict) and written.get("_target_") == target:
            same = list(_agreements(written, node))
            scores[file.stem] = -same.count(False), same.count(True)
    return max(scores, key=lambda name: scores[name]) if scores else target.rpartition(".")[2]


def _agreements(written: Mapping[Any, Any], node: Mapping[str, Any]) -> Iterator[bool]:
    """For each plain value whether it is the same; interpolations and the list of defaults say nothing."""
    for key, value in written.items():
        if isinstance(value, dict):
            below = node.get(key)
            yield from _agreements(value, below if isinstance(below, Mapping) else {})
        elif key != "defaults" and not (isinstance(value, str) and "${" in value):
            yield str(node.get(key)) == str(value)
