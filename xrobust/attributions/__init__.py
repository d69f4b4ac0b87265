"""Attribution methods: differentiable, batched maps (model, x, target) → relevance of every pixel."""

from xrobust.attributions.attention_rollout import AttentionRollout
from xrobust.attributions.base import Attribution, input_gradient
from xrobust.attributions.baselines import (
    Constant,
    FixedImages,
    GaussianBlur,
    ImageMean,
    Mixture,
    ReferenceImages,
    UniformImages,
)
from xrobust.attributions.boundary import Boundary, nearest_boundary
from xrobust.attributions.boundary_integrated_gradients import BoundaryIntegratedGradients
from xrobust.attributions.boundary_saliency import BoundarySaliency
from xrobust.attributions.deconvnet import Deconvnet
from xrobust.attributions.deep_lift import DeepLift
from xrobust.attributions.edge_detector import EdgeDetector, sobel_magnitude
from xrobust.attributions.expected_gradients import ExpectedGradients
from xrobust.attributions.full_grad import FullGrad
from xrobust.attributions.grad_cam import GradCAM
from xrobust.attributions.grad_cam_plus_plus import GradCAMPlusPlus
from xrobust.attributions.gradient import Gradient
from xrobust.attributions.gradient_shap import GradientShap
from xrobust.attributions.guided_backprop import GuidedBackprop
from xrobust.attributions.guided_grad_cam import GuidedGradCAM
from xrobust.attributions.input_x_gradient import InputXGradient
from xrobust.attributions.integrated_gradients import IntegratedGradients
from xrobust.attributions.internal_influence import InternalInfluence, unit_influence
from xrobust.attributions.kernel_shap import KernelShap
from xrobust.attributions.lime import Lime
from xrobust.attributions.lrp import LRP
from xrobust.attributions.occlusion import Occlusion
from xrobust.attributions.random_map import RandomMap
from xrobust.attributions.smooth_grad import SmoothGrad
from xrobust.attributions.smoothed_gradient import SmoothedGradient
from xrobust.attributions.var_grad import VarGrad

__all__ = [
    "LRP",
    "AttentionRollout",
    "Attribution",
    "Boundary",
    "BoundaryIntegratedGradients",
    "BoundarySaliency",
    "Constant",
    "Deconvnet",
    "DeepLift",
    "EdgeDetector",
    "ExpectedGradients",
    "FixedImages",
    "FullGrad",
    "GaussianBlur",
    "GradCAM",
    "GradCAMPlusPlus",
    "Gradient",
    "GradientShap",
    "GuidedBackprop",
    "GuidedGradCAM",
    "ImageMean",
    "InputXGradient",
    "IntegratedGradients",
    "InternalInfluence",
    "KernelShap",
    "Lime",
    "Mixture",
    "Occlusion",
    "RandomMap",
    "ReferenceImages",
    "SmoothGrad",
    "SmoothedGradient",
    "UniformImages",
    "VarGrad",
    "input_gradient",
    "nearest_boundary",
    "sobel_magnitude",
    "unit_influence",
]
