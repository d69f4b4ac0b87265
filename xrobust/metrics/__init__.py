"""Metrics: accuracy with its confidence interval, and the quality of explanations."""

from xrobust.metrics.accuracy import Accuracy, wilson_interval
from xrobust.metrics.alignment import EtmannAlignment, MeanSubtractedAlignment
from xrobust.metrics.average_sensitivity import AverageSensitivity
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.certified_gradient_bound import CertifiedGradientBound
from xrobust.metrics.certified_sign import CertifiedSign
from xrobust.metrics.certified_topk import CertifiedTopK
from xrobust.metrics.certified_width import CertifiedWidth
from xrobust.metrics.completeness_gap import CompletenessGap
from xrobust.metrics.cosine_similarity import CosineSimilarity
from xrobust.metrics.dummy_feature import DummyFeature
from xrobust.metrics.effective_complexity import EffectiveComplexity
from xrobust.metrics.efficient_mprt import EfficientMPRT
from xrobust.metrics.entropy import Entropy
from xrobust.metrics.faithfulness_correlation import FaithfulnessCorrelation
from xrobust.metrics.gini_index import GiniIndex
from xrobust.metrics.grid_pg import GridPG
from xrobust.metrics.high_band_energy import HighBandEnergy
from xrobust.metrics.implementation_invariance import ImplementationInvariance
from xrobust.metrics.infidelity import Infidelity
from xrobust.metrics.input_gradient_norm import InputGradientNorm
from xrobust.metrics.irof import IROF
from xrobust.metrics.kendall import KendallTau
from xrobust.metrics.linearised_robustness import LinearisedRobustness
from xrobust.metrics.linearity import Linearity
from xrobust.metrics.local_lipschitz import LocalLipschitz
from xrobust.metrics.localisation import LocalisationMetric
from xrobust.metrics.localisation_auc import LocalisationAUC
from xrobust.metrics.map_cosine import ImageCosine, MapCosine
from xrobust.metrics.max_sensitivity import MaxSensitivity
from xrobust.metrics.monotonicity import Monotonicity
from xrobust.metrics.mprt import MPRT, SmoothMPRT
from xrobust.metrics.perturbations import PixelNoise, PixelRemoval, SquareRemoval
from xrobust.metrics.pixel_flipping import DeletionAUC, InsertionAUC
from xrobust.metrics.pointing_game import PointingGame
from xrobust.metrics.prediction_kept import PredictionKept
from xrobust.metrics.probe import Probe, magnitude
from xrobust.metrics.random_logit import RandomLogit
from xrobust.metrics.relative_input_stability import RelativeInputStability
from xrobust.metrics.relative_output_stability import RelativeOutputStability
from xrobust.metrics.relative_representation_stability import RelativeRepresentationStability
from xrobust.metrics.relevance_mass import RelevanceMass
from xrobust.metrics.relevance_rank import RelevanceRank
from xrobust.metrics.road import ROADDifference, ROADLeastRelevantFirst, ROADMostRelevantFirst
from xrobust.metrics.sensitivity_n import SensitivityN
from xrobust.metrics.setting_agreement import SettingAgreement
from xrobust.metrics.sobel_correlation import SobelCorrelation
from xrobust.metrics.spearman import SpearmanCorrelation
from xrobust.metrics.ssim import SSIM
from xrobust.metrics.tolerant_topk import TolerantTopK
from xrobust.metrics.topk_intersection import TopKIntersection
from xrobust.metrics.total_variation import TotalVariation
from xrobust.metrics.versus_random import DeletionVersusRandom, InsertionVersusRandom

__all__ = [
    "IROF",
    "MPRT",
    "SSIM",
    "Accuracy",
    "AverageSensitivity",
    "CertifiedGradientBound",
    "CertifiedSign",
    "CertifiedTopK",
    "CertifiedWidth",
    "CompletenessGap",
    "CosineSimilarity",
    "DeletionAUC",
    "DeletionVersusRandom",
    "DummyFeature",
    "EffectiveComplexity",
    "EfficientMPRT",
    "Entropy",
    "EtmannAlignment",
    "ExplanationMetric",
    "FaithfulnessCorrelation",
    "GiniIndex",
    "GridPG",
    "HighBandEnergy",
    "ImageCosine",
    "ImplementationInvariance",
    "Infidelity",
    "InputGradientNorm",
    "InsertionAUC",
    "InsertionVersusRandom",
    "KendallTau",
    "LinearisedRobustness",
    "Linearity",
    "LocalLipschitz",
    "LocalisationAUC",
    "LocalisationMetric",
    "MapCosine",
    "MaxSensitivity",
    "MeanSubtractedAlignment",
    "Monotonicity",
    "PixelNoise",
    "PixelRemoval",
    "PointingGame",
    "PredictionKept",
    "Probe",
    "ROADDifference",
    "ROADLeastRelevantFirst",
    "ROADMostRelevantFirst",
    "RandomLogit",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
    "RelevanceMass",
    "RelevanceRank",
    "SensitivityN",
    "SettingAgreement",
    "SmoothMPRT",
    "SobelCorrelation",
    "SpearmanCorrelation",
    "SquareRemoval",
    "TolerantTopK",
    "TopKIntersection",
    "TotalVariation",
    "magnitude",
    "wilson_interval",
]
