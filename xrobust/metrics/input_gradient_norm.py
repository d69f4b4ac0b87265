"""How fast the loss changes with the image."""

from __future__ import annotations

from torch import Tensor

from xrobust.errors import one_of
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe

ORDERS = {"l1": 1, "l2": 2}


class InputGradientNorm(ExplanationMetric):
    """‖∇ₓ CE(f(x), y)‖ (Drucker & LeCun 1992, Ross & Doshi-Velez 2018); a property of the model.

    Args:
        norm: "l1", to first order the rise of the loss for each unit of an Linf perturbation, or "l2", for
            each unit of an L2 perturbation.
    """

    higher_is_better, group, cost = False, "smoothness", "cheap"
    uses_attribution = False
    point = 12  # the model itself

    def __init__(self, norm: str = "l1"):
        super().__init__()
        if norm not in ORDERS:
            raise one_of("InputGradientNorm.norm", norm, list(ORDERS))
        self.order = ORDERS[norm]

    def per_sample(self, probe: Probe) -> Tensor:
        return probe.loss_gradient.flatten(1).double().norm(self.order, dim=1)
