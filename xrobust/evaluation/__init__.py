"""Evaluation that can be believed: the worst of all attacks for each sample, and signs that it is not enough."""

from xrobust.evaluation.batch import Turn
from xrobust.evaluation.ladder import Ladder
from xrobust.evaluation.outcome import Evaluation, Outcomes
from xrobust.evaluation.results import accuracies, curve, samples_csv, turn_by_turn
from xrobust.evaluation.run import evaluate, require_fit

__all__ = [
    "Evaluation",
    "Ladder",
    "Outcomes",
    "Turn",
    "accuracies",
    "curve",
    "evaluate",
    "require_fit",
    "samples_csv",
    "turn_by_turn",
]
