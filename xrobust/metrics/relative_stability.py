"""How much an explanation changes, relative to the change that caused it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from xrobust.errors import UserError, at_least
from xrobust.metrics.neighbourhood import WorstNeighbour
from xrobust.metrics.probe import Probe


def relative_change(before: Tensor, after: Tensor, floor: float) -> Tensor:
    """‖(v' − v) / max(|v|, φ·rms(v))‖₂, entry by entry: (N, d), (N, d) → (N,) float64.

    The floor keeps entries near zero (a blank background) from deciding everything: they count relative to a share φ
    of the root mean square of all entries. Infinite or NaN if v is zero.
    """
    before, after = before.double(), after.double()
    typical = before.square().mean(1, keepdim=True).sqrt()
    return ((after - before) / torch.maximum(before.abs(), floor * typical)).norm(dim=1)


class RelativeStability(WorstNeighbour):
    """max_k Δ(a(x), a(x_k)) / max(cause(x, x_k), ε_min), Δ the `relative_change` (Agarwal et al. 2022).

    The x_k are uniform in the threat model's ball; those with another prediction than x are left out. In [0, ∞).

    Args:
        samples: see `WorstNeighbour`.
        floor: φ in (0, ∞), the least an entry counts in a relative change, as a share of the typical entry.
        least_cause: ε_min > 0, which keeps the ratio finite where the cause vanishes.
    """

    def __init__(self, samples: int = 10, floor: float = 0.1, least_cause: float = 1e-3):
        super().__init__(samples)
        for name, value in (("floor", floor), ("least_cause", least_cause)):
            at_least(type(self).__name__, 0.0, **{name: value})
            if value == 0:
                raise UserError(f"{type(self).__name__}.{name} must be above 0, got {value!r}")
        self.floor, self.least_cause = floor, least_cause

    @abstractmethod
    def cause(self, probe: Probe, points: Tensor, logits: Tensor) -> Tensor:
        """How much else changed at points with these logits: (N,) float64."""

    def instability(self, probe: Probe, points: Tensor) -> Tensor:
        logits = probe.logits_at(points)
        effect = relative_change(probe.map.flatten(1), probe.attribute(points).flatten(1), self.floor)
        ratio = effect / self.cause(probe, points, logits).clamp(min=self.least_cause)
        return ratio.where(logits.argmax(1) == probe.prediction, -torch.inf)
