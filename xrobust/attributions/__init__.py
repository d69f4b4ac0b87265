"""Attribution methods: differentiable, batched maps (model, x, target) → relevance of every pixel."""

from xrobust.attributions.base import Attribution, input_gradient
from xrobust.attributions.baselines import Constant, FixedImages, GaussianBlur, ImageMean
from xrobust.attributions.gradient import Gradient
from xrobust.attributions.input_x_gradient import InputXGradient
from xrobust.attributions.integrated_gradients import IntegratedGradients
from xrobust.attributions.smooth_grad import SmoothGrad

__all__ = [
    "Attribution",
    "Constant",
    "FixedImages",
    "GaussianBlur",
    "Gradient",
    "ImageMean",
    "InputXGradient",
    "IntegratedGradients",
    "SmoothGrad",
    "input_gradient",
]
