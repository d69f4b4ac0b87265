"""How much of what a Lipschitz constant allows a gradient makes use of."""

from __future__ import annotations

import torch
from torch import Tensor

from xrobust.attributions import Gradient
from xrobust.certification import slopes
from xrobust.errors import UserError
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe


class CertifiedGradientBound(ExplanationMetric):
    """‖∇ₓ(z_y − z_j)‖₂ / (K‖w_y − w_j‖₂), with j the highest other class (Leino et al. 2021 for the bound).

    The denominator bounds this gradient at every image whatsoever: no attack can make the explanation longer. In
    [0, 1]; 1 where the bound is reached. K is of all layers before the last one, its norms proven in float64. Undefined
    where no image can change the difference of the two logits.
    """

    higher_is_better, group, cost = True, "certified", "moderate"
    uses_attribution = False

    def lacks(self, probe: Probe) -> str | None:
        try:
            slopes(probe.model, probe.x[0])
        except UserError as error:
            return f"a Lipschitz constant of the model ({error})"
        return super().lacks(probe)

    def per_sample(self, probe: Probe) -> Tensor:
        y = probe.y
        rival = probe.logits.scatter(1, y.unsqueeze(1), -torch.inf).argmax(1)

        def difference(logits: Tensor) -> Tensor:
            own, other = (logits.gather(1, classes.clone().unsqueeze(1)) for classes in (y, rival))
            return (own - other).squeeze(1)

        gradient = Gradient(batch_size=probe.batch_size)(probe.model, probe.x, difference)
        length = torch.linalg.vector_norm(gradient.double().flatten(1), dim=1)
        return length / slopes(probe.model, probe.x[0])[y, rival]
