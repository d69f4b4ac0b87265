"""What is known of a finished run, whatever it was read from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from xrobust.report.history import Row


@dataclass(frozen=True)
class Measurement:
    """A value and how it was measured.

    Args:
        quantity: the log key.
        value: finite.
        protocol: everything that the value depends on apart from the model, in plain containers.
        images: how many, where that is known.
    """

    quantity: str
    value: float
    protocol: Mapping[str, Any]
    images: int | None = None

    @property
    def identity(self) -> str:
        """Equal for values that may be averaged: the protocol without the seed, and the number of images."""
        return json.dumps([{**self.protocol, "seed": None}, self.images], sort_keys=True)

    @property
    def method(self) -> Mapping[str, Any]:
        """The attack or the certifier of an accuracy."""
        found = self.protocol.get("attack") or self.protocol.get("certifier")
        return found if isinstance(found, Mapping) else {}

    @property
    def threat(self) -> Mapping[str, Any]:
        """Norm and ε that the attack or certifier is for; randomised smoothing has norm and radius."""
        smoothed = {"norm": self.method.get("norm"), "eps": self.method.get("radius")}
        return below(self.method, "threat") or smoothed

    def in_words(self) -> str:
        """The protocol in a line, without number of images and seed."""
        shown = {key: value for key, value in self.protocol.items() if key not in ("images", "seed")}
        shown |= {key: value["summary"] for key, value in shown.items() if isinstance(value, Mapping)}
        return " · ".join(f"{key}: {value}" for key, value in shown.items() if value is not None)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        name: among the runs that are compared.
        place: where it was read.
        config: its resolved configuration.
        measurements: of the finished run; a quantity may have several, with different protocols.
        directions: by explanation metric, whether higher is better.
        history: the rows of metrics.csv.
        epoch: the one that was selected, where the history tells.
        warnings: of the checks for gradient masking.
        bundle: its folder; none for a row of a table.
        weights: the SHA-256 of its weights.
    """

    name: str
    place: Path
    config: Mapping[str, Any]
    measurements: Sequence[Measurement]
    directions: Mapping[str, bool | None] = field(default_factory=dict)
    history: Sequence[Row] = ()
    epoch: float | None = None
    warnings: Sequence[str] = ()
    bundle: Path | None = None
    weights: str | None = None

    def of(self, quantity: str) -> list[Measurement]:
        """Its measurements of a quantity."""
        return [measurement for measurement in self.measurements if measurement.quantity == quantity]


def below(node: Any, *path: str) -> Mapping[str, Any]:
    """The part of a configuration at a path; empty where there is none, or a plain value (as tables may have)."""
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def radius(threat: Any) -> Fraction | None:
    """The exact ε of a threat model in a configuration, where there is one."""
    try:
        return Fraction(str(threat["eps"]).replace(" ", ""))
    except (KeyError, TypeError, ValueError):
        return None


def training_radius(node: Any) -> Fraction | None:
    """The radius of the first threat model within a training method's configuration; none if it has none."""
    if not isinstance(node, Mapping):
        return None
    if "norm" in node and "eps" in node:
        return radius(node)
    return next((found for child in node.values() if (found := training_radius(child)) is not None), None)
