"""Metrics: accuracy with its confidence interval, and the quality of explanations."""

from xrobust.metrics.accuracy import Accuracy, wilson_interval
from xrobust.metrics.alignment import EtmannAlignment, MeanSubtractedAlignment
from xrobust.metrics.average_sensitivity import AverageSensitivity
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.entropy import Entropy
from xrobust.metrics.gini_index import GiniIndex
from xrobust.metrics.input_gradient_norm import InputGradientNorm
from xrobust.metrics.linearised_robustness import LinearisedRobustness
from xrobust.metrics.pixel_flipping import DeletionAUC, InsertionAUC
from xrobust.metrics.probe import Probe, magnitude
from xrobust.metrics.spearman import SpearmanCorrelation
from xrobust.metrics.topk_intersection import TopKIntersection
from xrobust.metrics.total_variation import TotalVariation

__all__ = [
    "Accuracy",
    "AverageSensitivity",
    "DeletionAUC",
    "Entropy",
    "EtmannAlignment",
    "ExplanationMetric",
    "GiniIndex",
    "InputGradientNorm",
    "InsertionAUC",
    "LinearisedRobustness",
    "MeanSubtractedAlignment",
    "Probe",
    "SpearmanCorrelation",
    "TopKIntersection",
    "TotalVariation",
    "magnitude",
    "wilson_interval",
]
