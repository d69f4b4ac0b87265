"""From the fate of each sample to numbers with their protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xrobust.evaluation.batch import turns
from xrobust.evaluation.ladder import Ladder
from xrobust.evaluation.outcome import MISCLASSIFIED, STANDING, Evaluation
from xrobust.export.result import AccuracyResult, images_protocol
from xrobust.files import csv_text

COLUMNS = (
    "index",
    "label",
    "clean_prediction",
    "threat",
    "eps",
    "broken_by",
    "adversarial_prediction",
    "distance",
)


def accuracies(evaluation: Evaluation, stage: str, data: str | None = None) -> list[AccuracyResult]:
    """Clean accuracy, robust accuracy for each threat model, and for several of them that against their union.

    Args:
        evaluation: of N samples.
        stage: "test" or "val", the first part of the quantities' names.
        data: which data set, for the record.
    """
    without = images_protocol(stage, data)
    attacked = {**without, "seed": evaluation.seed}
    results = [_result(f"{stage}/clean_accuracy", evaluation.clean, without)]
    for i, ladder in enumerate(evaluation.ladders):
        protocol = {**attacked, "attack": ladder.attack.describe()}
        results.append(_result(f"{stage}/robust_accuracy", evaluation.standing(i), protocol))
    if len(evaluation.ladders) > 1:
        attacks = [ladder.attack.describe() for ladder in evaluation.ladders]
        summary = f"all of {', '.join(str(ladder.threat) for ladder in evaluation.ladders)}, each attacked as above"
        protocol = {**attacked, "attack": {"name": "union", "attacks": attacks, "summary": summary}}
        results.append(_result(f"{stage}/union_robust_accuracy", evaluation.union, protocol))
    return results


def curve(evaluation: Evaluation, ladder: int) -> list[dict[str, Any]]:
    """Accuracy at each radius of a ladder, upwards, with the 95% interval; it never rises."""
    points = []
    for i, rung in enumerate(evaluation.ladders[ladder].rungs):
        measured = _result("", evaluation.standing(ladder, i), {}).as_dict()
        kept = {key: measured[key] for key in ("value", "interval_95", "correct", "n")}
        points.append({"eps": rung.threat.radius, "eps_exact": str(rung.threat.fraction), **kept})
    return points


def turn_by_turn(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each threat model, radius and member of the attack: samples standing after its turn, and seconds spent."""
    members = [len(ladder.members) for ladder in evaluation.ladders for _ in ladder.rungs]
    seconds = [row[:count] for row, count in zip(evaluation.outcomes.seconds, members, strict=True)]
    return [
        {"threat": turn.threat, "attack": turn.member, "standing": turn.standing, "seconds": float(spent)}
        for turn, spent in zip(turns(evaluation.outcomes, evaluation.ladders), np.concatenate(seconds), strict=True)
    ]


def samples_csv(evaluation: Evaluation) -> str:
    """One line for each sample and radius; `broken_by` and `distance` are empty for samples that stand.

    `broken_by` is "clean" for samples that are wrong without an attack.
    """
    outcomes = evaluation.outcomes
    rungs = [(ladder, rung) for ladder in evaluation.ladders for rung in ladder.rungs]
    rows = []
    for n, head in enumerate(zip(outcomes.index, outcomes.label, outcomes.clean_prediction, strict=True)):
        for place, (ladder, rung) in enumerate(rungs):
            fate = outcomes.broken_by[n, place]
            distance = "" if fate == STANDING else f"{outcomes.distance[n, place]:.6g}"
            eps = f"{rung.threat.radius:.8g}"
            by = _breaker(ladder, fate)
            rows.append([*head, str(rung.threat), eps, by, outcomes.prediction[n, place], distance])
    return csv_text(COLUMNS, rows)


def _breaker(ladder: Ladder, fate: int) -> str:
    if fate == STANDING:
        return ""
    return "clean" if fate == MISCLASSIFIED else ladder.members[fate - 1]


def _result(quantity: str, right: NDArray, protocol: dict[str, Any]) -> AccuracyResult:
    return AccuracyResult(quantity, int(np.count_nonzero(right)), len(right), protocol)
