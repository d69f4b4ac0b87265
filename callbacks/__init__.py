"""Lightning callbacks: what is measured, drawn and saved while a model trains."""

from callbacks.attribution_panels import AttributionPanels
from callbacks.best_checkpoint import BestCheckpoint
from callbacks.catastrophic_overfitting import CatastrophicOverfitting
from callbacks.certified_accuracy import CertifiedAccuracy
from callbacks.early_stopping import EarlyStopping
from callbacks.epsilon_schedule import EpsilonSchedule
from callbacks.explanation_card import ExplanationCard
from callbacks.explanation_quality import ExplanationQuality
from callbacks.history import History
from callbacks.movable_checkpoint import MovableCheckpoint
from callbacks.progress_bar import ProgressBar
from callbacks.robust_accuracy import RobustAccuracy
from callbacks.robust_gap import RobustGap
from callbacks.stochastic_weight_average import StochasticWeightAverage
from callbacks.weight_average import ExponentialMovingAverage
from callbacks.weight_penalty import L1WeightPenalty
from callbacks.weight_perturbation import AdversarialWeightPerturbation

__all__ = [
    "AdversarialWeightPerturbation",
    "AttributionPanels",
    "BestCheckpoint",
    "CatastrophicOverfitting",
    "CertifiedAccuracy",
    "EarlyStopping",
    "EpsilonSchedule",
    "ExplanationCard",
    "ExplanationQuality",
    "ExponentialMovingAverage",
    "History",
    "L1WeightPenalty",
    "MovableCheckpoint",
    "ProgressBar",
    "RobustAccuracy",
    "RobustGap",
    "StochasticWeightAverage",
]
