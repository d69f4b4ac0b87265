"""Differentiable penalties on gradients, curvature and attributions."""

from xrobust.regularizers.art import ART
from xrobust.regularizers.ascent import PenaltyAscent
from xrobust.regularizers.attribution_change import AttributionChange
from xrobust.regularizers.ball import BallRegularizer, WorstCase
from xrobust.regularizers.base import Regularizer
from xrobust.regularizers.cure import CURE
from xrobust.regularizers.grad_align import GradAlign
from xrobust.regularizers.gradient_target import GradientTarget
from xrobust.regularizers.hessian_norm import HessianNorm
from xrobust.regularizers.input_gradient import InputGradient
from xrobust.regularizers.integrated_gradients import IGNorm, IGSumNorm
from xrobust.regularizers.jacobian import JacobianNorm
from xrobust.regularizers.llr import LLR
from xrobust.regularizers.right_reasons import RightReasons
from xrobust.regularizers.smooth_surface import SmoothSurface
from xrobust.regularizers.targets import TeacherMap, TowardsClass, towards_class_means
from xrobust.regularizers.total_variation import TotalVariation

__all__ = [
    "ART",
    "CURE",
    "LLR",
    "AttributionChange",
    "BallRegularizer",
    "GradAlign",
    "GradientTarget",
    "HessianNorm",
    "IGNorm",
    "IGSumNorm",
    "InputGradient",
    "JacobianNorm",
    "PenaltyAscent",
    "Regularizer",
    "RightReasons",
    "SmoothSurface",
    "TeacherMap",
    "TotalVariation",
    "TowardsClass",
    "WorstCase",
    "towards_class_means",
]
