"""Checks for gradient masking and other failures of an evaluation."""

from xrobust.evaluation.masking.after import check_evaluation
from xrobust.evaluation.masking.base import Check, Finding, run_checks, warnings_of
from xrobust.evaluation.masking.gradients import UnusableGradients
from xrobust.evaluation.masking.optimisation import LossDoesNotRise, MoreStepsWin, UnboundedAttackFails
from xrobust.evaluation.masking.outputs import ProbabilityOutputs, RandomOutputs, TrainingMode
from xrobust.evaluation.masking.subject import Subject, spread
from xrobust.evaluation.masking.weaker import BlackBoxWins, NoiseWins, SingleStepWins, TransferWins, WeakerAttackWins

__all__ = [
    "BlackBoxWins",
    "Check",
    "Finding",
    "LossDoesNotRise",
    "MoreStepsWin",
    "NoiseWins",
    "ProbabilityOutputs",
    "RandomOutputs",
    "SingleStepWins",
    "Subject",
    "TrainingMode",
    "TransferWins",
    "UnboundedAttackFails",
    "UnusableGradients",
    "WeakerAttackWins",
    "check_evaluation",
    "run_checks",
    "spread",
    "warnings_of",
]
