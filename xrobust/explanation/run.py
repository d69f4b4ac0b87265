"""Measure a model's explanations, beside their references, and fill in the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xrobust.attributions import Attribution
from xrobust.explanation.card import explanation_card
from xrobust.explanation.measurement import Measurement
from xrobust.explanation.methods import method_facts
from xrobust.explanation.references import reference_measurements
from xrobust.explanation.suite import Watch, measure, out_of_reach
from xrobust.export.result import images_protocol
from xrobust.metrics import ExplanationMetric, Probe


def answer(
    probes: Sequence[Probe],
    attributions: Mapping[str, Attribution],
    metrics: Mapping[str, ExplanationMetric],
    *,
    split: str,
    data: str | None = None,
    results: Sequence[Mapping[str, Any]] = (),
    with_references: bool = True,
    watch: Watch = lambda key: None,
) -> tuple[list[Measurement], dict[str, Any]]:
    """The measurements of the model, and the explanation card.

    Args:
        probes: the images, in parts.
        attributions: by name.
        metrics: by name; those that ask for what the probes do not have are left out, which the card says.
        split, data: where the images come from, for the record.
        results: accuracies of the model, as in a bundle.
        with_references: whether to measure what to compare with, as well.
        watch: is told what comes next.
    """
    wanted = metrics
    missing = out_of_reach(wanted, probes[0])
    metrics = {name: metric for name, metric in wanted.items() if name not in missing}
    measurements = measure(probes, attributions, metrics, watch)
    references = (
        reference_measurements(probes, attributions, metrics, lambda key: watch(f"reference: {key}"))
        if with_references
        else {}
    )
    first = probes[0]
    attacks = {"attack": first.attack, "attack on the map": first.map_attack}
    protocol = {
        "images": sum(map(len, probes)),
        **images_protocol(split, data),
        "threat model": str(first.threat),
        **{name: attack.describe()["summary"] for name, attack in attacks.items() if attack is not None},
        "seed": first.seed,
        **({"left out": "; ".join(f"{name} (needs {need})" for name, need in missing.items())} if missing else {}),
    }
    return measurements, explanation_card(
        measurements, references, method_facts(first, attributions), results, protocol
    )
