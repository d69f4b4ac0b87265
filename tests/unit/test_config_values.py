"""Which plain values a parameter's annotation can mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from xrobust.certification import Cascade
from xrobust.config.build import build
from xrobust.config.values import accepts, annotation_of, said
from xrobust.errors import UserError

OBJECT = {"_target_": "xrobust.schedules.Constant"}


@pytest.mark.parametrize(
    ("annotation", "taken", "refused"),
    [
        (int, [0, -3], [None, 1.5, True, "3", [3]]),
        (float, [0, 0.5], [None, True, "0.5"]),
        (bool, [True, False], [None, 0, "yes"]),
        (str, ["", "a"], [None, 3, ["a"]]),
        (str | Path, ["folder"], [None, 3]),
        (int | None, [None, 3], ["3"]),
        (Literal["linf", "l2"], ["l2"], [None, "l1", 2]),
        (Sequence[float], [[], [1, 0.5]], [None, 1.0, ["a"], "ab", {}]),
        (Iterable[str], [["a"]], [None, "a", [1]]),
        (tuple[float, float], [[0.9, 0.999]], [[0.9], [0.9, "a"]]),
        (tuple[int, ...], [[], [1, 2]], [[1.5]]),
        (Mapping[str, int], [{}, {"a": 1}], [None, [1], {"a": "b"}]),
        (Mapping[str, nn.Module], [{"a": OBJECT}], [{"a": None}, {"a": "b"}]),
        (nn.Module, [OBJECT], [None, 3, "b", []]),
        (torch.Tensor | float, [0.1], ["b", [0.1]]),
        (Callable[[int], int], [OBJECT], [None]),
        (Any, [None, 3, "a", [], {}], []),
    ],
)
def test_plain_values(annotation: Any, taken: list[Any], refused: list[Any]) -> None:
    assert [value for value in taken if not accepts(annotation, value)] == []
    assert [value for value in refused if accepts(annotation, value)] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "int or null"),
        (str | Path, "str or a path"),
        (Sequence[float], "a list of float"),
        (Mapping[str, nn.Module], "a mapping of names to Module"),
        (Literal["linf", "l2"], "'linf' or 'l2'"),
        (Fraction, "Fraction"),
    ],
)
def test_an_annotation_in_words(annotation: Any, words: str) -> None:
    assert said(annotation) == words


def test_names_for_type_checkers_alone_are_taken_for_anything() -> None:
    def function(a: Sequence[Unknown], b: unknown.Thing, c: int | Unknown, d) -> None: ...  # type: ignore[name-defined] # noqa: F821

    parameters = inspect.signature(function).parameters
    for name, value in {"a": ["x", 1], "b": 1, "c": "x", "d": None}.items():
        assert accepts(annotation_of(function, parameters[name]), value)
    assert not accepts(annotation_of(function, parameters["a"]), 1)


def test_an_inherited_field_is_read_where_it_is_written() -> None:
    threat = inspect.signature(Cascade).parameters["threat"]
    assert annotation_of(Cascade, threat).__name__ == "ThreatModel"


def test_a_value_that_only_fails_later_is_refused_with_its_place() -> None:
    threat = {"_target_": "xrobust.threat.ThreatModel", "norm": "linf", "eps": 0.1}
    with pytest.raises(UserError, match=r"^attack\.attacks\.pgd must be Attack, got null$"):
        build({"_target_": "xrobust.attacks.WorstOf", "threat": threat, "attacks": {"pgd": None}}, "attack")
    with pytest.raises(UserError, match=r"^certifier\.certifiers must be a mapping of names to Certifier, got 'ibp'$"):
        build({"_target_": "xrobust.certification.Cascade", "threat": threat, "certifiers": "ibp"}, "certifier")
