"""How far the gradient can move at most, relative to itself."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.certified_gradient import CertifiedGradient
from xrobust.metrics.probe import Probe


class CertifiedWidth(CertifiedGradient):
    """Σ_i (u_i − l_i) / Σ_i |∂_i f_y(x)| with [l, u] the box of the gradient over the ball (Wicker et al. 2023).

    In [0, ∞), free of the logits' scale; no image x′ in the ball has ‖∇f_y(x′) − ∇f_y(x)‖₁ / ‖∇f_y(x)‖₁ above it.
    """

    higher_is_better = False

    def per_sample(self, probe: Probe) -> Tensor:
        box = self.box(probe)
        return (box.upper - box.lower).flatten(1).sum(1) / probe.gradient.double().abs().flatten(1).sum(1)
