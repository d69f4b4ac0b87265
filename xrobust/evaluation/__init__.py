"""Evaluation that can be believed: the worst of all attacks for each sample, and signs that it is not enough."""

from xrobust.evaluation.batch import Turn
from xrobust.evaluation.evaluate import evaluate
from xrobust.evaluation.ladder import Ladder
from xrobust.evaluation.outcome import Evaluation, Outcomes
from xrobust.evaluation.results import accuracies, curve, samples_csv, turn_by_turn

__all__ = [
    "Evaluation",
    "Ladder",
    "Outcomes",
    "Turn",
    "accuracies",
    "curve",
    "evaluate",
    "samples_csv",
    "turn_by_turn",
]
