"""What the metrics of certified gradients share: a box of the gradient wherever an adversary may move the image."""

from __future__ import annotations

import torch

from xrobust.certification import Box, boundable_network, gradient_bounds
from xrobust.certification.gradients import PREACTIVATIONS
from xrobust.errors import UserError, one_of
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe

IMAGES = 64  # bounded at once: intervals of all layers are kept, in float64


class CertifiedGradient(ExplanationMetric):
    """The base of metrics of the box of ∇ₓ f_y over the threat model, which holds the gradient of every image in the
    ball (Wicker et al. 2023); a property of the model, for its gradient as the explanation.

    Args:
        preactivations: what bounds them: "ibp" or "crown", see `gradient_bounds`.
    """

    group, cost = "certified", "moderate"
    uses_attribution = False

    def __init__(self, preactivations: str = "ibp"):
        super().__init__()
        if preactivations not in PREACTIVATIONS:
            raise one_of(f"{type(self).__name__}.preactivations", preactivations, PREACTIVATIONS)
        self.preactivations = preactivations

    def lacks(self, probe: Probe) -> str | None:
        if probe.threat.norm != "linf":
            return f"an Linf threat model instead of {probe.threat}"
        try:
            boundable_network(probe.model, probe.x, probe.threat)
        except UserError as error:
            return f"bounds of all that the model computes ({error})"
        return super().lacks(probe)

    def box(self, probe: Probe) -> Box:
        """Corners (N, C, H, W) in float64; computed once for all metrics with the same preactivations."""
        name = f"box of the gradient, {self.preactivations}"
        if name not in probe.shared:
            size = min(probe.batch_size, IMAGES)
            bounded = gradient_bounds(
                probe.model, probe.x, probe.y, probe.threat, preactivations=self.preactivations, batch_size=size
            )
            probe.shared[name] = torch.stack([bounded.lower, bounded.upper])
        return Box(*probe.shared[name])
