"""The checks after an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from xrobust.attacks import Attack
from xrobust.evaluation.images import device_of, unit
from xrobust.evaluation.masking.base import Check, Finding, run_checks
from xrobust.evaluation.masking.subject import Subject, spread
from xrobust.evaluation.outcome import Evaluation


def check_evaluation(
    evaluation: Evaluation,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    white_boxes: Sequence[Attack],
    checks: Mapping[str, Check],
    *,
    count: int = 200,
    surrogate: nn.Module | None = None,
) -> list[Finding]:
    """All checks for each threat model, on samples that the model gets right; equal findings once.

    Args:
        evaluation: what `evaluate` returned for this model, x and y.
        white_boxes: for each ladder, the attack to compare with, on the ladder's threat model.
        checks: by name.
        count: how many samples, at most, spread evenly over the set.
        surrogate: an undefended model for the same task, if there is one.
    """
    right = torch.from_numpy(evaluation.clean).nonzero().flatten()
    rows = right[spread(len(right), count)]
    index = torch.from_numpy(evaluation.outcomes.index)[rows]
    device = device_of(model, x)
    images, labels = unit(x[rows]).to(device), y[rows].to(device)
    findings = []
    for i, white_box in enumerate(white_boxes):
        standing = torch.from_numpy(evaluation.standing(i))[rows].to(device)
        subject = Subject(model, images, labels, index, white_box, standing, surrogate, evaluation.seed)
        findings += run_checks(checks, subject)
    return list(dict.fromkeys(findings))
