"""The explanation card: the checklist, answered with numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from xrobust.explanation.checklist import CHECKLIST
from xrobust.explanation.measurement import Measurement
from xrobust.explanation.methods import MethodFacts
from xrobust.explanation.references import UNTRAINED


def explanation_card(
    measurements: Sequence[Measurement],
    references: Mapping[str, Sequence[Measurement]],
    methods: Mapping[str, MethodFacts],
    results: Sequence[Mapping[str, Any]],
    protocol: Mapping[str, Any],
) -> dict[str, Any]:
    """The answers in plain containers, for JSON; `xrobust.export.explanation_table` writes them out.

    Args:
        measurements: of the model.
        references: the same metrics by reference, as `reference_measurements` gives them.
        methods: by name, what is known of each attribution without any metric.
        results: accuracies, as in a bundle.
        protocol: images, split, threat model, attacks, seed.
    """
    points = []
    for point in CHECKLIST:
        measured = [one for one in measurements if one.point == point.number]
        rows = [{**one.as_dict(), "references": _beside(one, references)} for one in measured]
        points.append({**asdict(point), "rows": rows})
    return {
        "protocol": dict(protocol),
        "accuracies": [dict(result) for result in results],
        "methods": {name: facts.as_dict() for name, facts in methods.items()},
        "references": list(references),
        "points": points,
    }


def _beside(measured: Measurement, references: Mapping[str, Sequence[Measurement]]) -> dict[str, float | None]:
    """By reference, the mean of the same metric: for an untrained network, of the same attribution."""
    means = {}
    for name, candidates in references.items():
        attribution = measured.attribution if name == UNTRAINED or measured.attribution is None else name
        same = [one for one in candidates if (one.metric, one.attribution) == (measured.metric, attribution)]
        means[name] = same[0].as_dict()["mean"] if same else None
    return means
