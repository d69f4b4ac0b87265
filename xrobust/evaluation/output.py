"""What an evaluation leaves in its folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import xrobust
from xrobust.evaluation.masking import Finding, warnings_of
from xrobust.evaluation.outcome import STANDING, Evaluation
from xrobust.evaluation.results import accuracies, curve, samples_csv, turn_by_turn
from xrobust.files import replace_file
from xrobust.report.evaluation import draw_curve, draw_examples
from xrobust.report.panel import png

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}


def write_outputs(
    folder: Path,
    evaluation: Evaluation,
    findings: Sequence[Finding],
    stage: str,
    device: str,
    data: str | None = None,
) -> dict[str, Any]:
    """Write samples.csv, summary.json, panel.png, and curve.png if there are several radii; returns the summary.

    Args:
        folder: where to.
        evaluation: the outcomes.
        findings: of the checks for gradient masking.
        stage: "test" or "val".
        device: what computed, for the record.
        data: which data set, for the record.
    """
    summary = {
        "results": [result.as_dict() for result in accuracies(evaluation, stage, data)],
        "curves": {str(ladder.threat): curve(evaluation, i) for i, ladder in enumerate(evaluation.ladders)},
        "turns": turn_by_turn(evaluation),
        "warnings": [finding.as_dict() for finding in warnings_of(findings)],
        "checks": [finding.as_dict() for finding in findings],
        "versions": {"xrobust": xrobust.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "device": device,
    }
    replace_file(folder / "samples.csv", samples_csv(evaluation))
    replace_file(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    for i, ladder in enumerate(evaluation.ladders):
        if len(ladder.rungs) > 1:
            name = "curve.png" if len(evaluation.ladders) == 1 else f"curve_{i}.png"
            x_label = f"ε ({NORMS[ladder.threat.norm]})"
            _save(folder / name, draw_curve(curve(evaluation, i), ", ".join(ladder.members), x_label))
    if len(evaluation.outcomes.shown):
        _save(folder / "panel.png", _panel(evaluation))
    return summary


def _panel(evaluation: Evaluation, columns: int = 10) -> Figure:
    """Images with their adversarial examples: broken ones first, in the order of the data set."""
    outcomes = evaluation.outcomes
    places = [evaluation.first_rung(i) + ladder.own for i, ladder in enumerate(evaluation.ladders)]
    rows = {int(index): row for row, index in enumerate(outcomes.index)}
    shown = [rows[int(index)] for index in outcomes.shown]
    fates = outcomes.broken_by[shown][:, places]
    order = (fates == STANDING).sum(1).argsort(kind="stable")[:columns]
    kept = [shown[i] for i in order]
    captions = [[str(outcomes.label[row]) for row in kept]]
    for place in places:
        stands = outcomes.broken_by[kept, place] == STANDING
        predictions = outcomes.prediction[kept, place]
        captions.append(["stands" if s else f"→ {p}" for s, p in zip(stands, predictions, strict=True)])
    threats = [str(ladder.threat) for ladder in evaluation.ladders]
    return draw_examples(outcomes.images[order], outcomes.adversarial_images[order], threats, captions)


def _save(path: Path, figure: Figure) -> None:
    replace_file(path, png(figure))
