"""How much of the gradient keeps its sign, provably."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.certified_gradient import CertifiedGradient
from xrobust.metrics.probe import Probe


class CertifiedSign(CertifiedGradient):
    """The share of Σ_i |∂_i f_y(x)| at entries whose sign is the same for every image in the ball: l_i > 0 or u_i < 0.

    In [0, 1]; [l, u] is the box of the gradient over the ball (Wicker et al. 2023).
    """

    higher_is_better = True

    def per_sample(self, probe: Probe) -> Tensor:
        box, size = self.box(probe), probe.gradient.double().abs()
        certain = (box.lower > 0) | (box.upper < 0)
        return size.where(certain, 0).flatten(1).sum(1) / size.flatten(1).sum(1)
