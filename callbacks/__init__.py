"""Lightning callbacks: what is measured, drawn and saved while a model trains."""

from callbacks.attribution_panels import AttributionPanels
from callbacks.best_checkpoint import BestCheckpoint
from callbacks.epsilon_schedule import EpsilonSchedule
from callbacks.explanation_quality import ExplanationQuality
from callbacks.history import History
from callbacks.progress_bar import ProgressBar
from callbacks.robust_accuracy import RobustAccuracy

__all__ = [
    "AttributionPanels",
    "BestCheckpoint",
    "EpsilonSchedule",
    "ExplanationQuality",
    "History",
    "ProgressBar",
    "RobustAccuracy",
]
