"""Whether an attribution points where something else does: the image, or a reference map."""

from __future__ import annotations

from torch import Tensor

from xrobust.attributions import Attribution
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """⟨u, v⟩ / (‖u‖₂·‖v‖₂) in float64: (N, d), (N, d) → (N,), in [−1, 1]; NaN if either is zero or not finite."""
    first, second = first.double(), second.double()
    return ((first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))).clamp(-1, 1)


class ImageCosine(ExplanationMetric):
    """cos(m, Σ_c |x_c|): whether the magnitudes m = Σ_c |a_c| lie where the image is bright."""

    higher_is_better, group, cost = True, "alignment", "cheap"

    def per_sample(self, probe: Probe) -> Tensor:
        return cosine(magnitude(probe.map).flatten(1), magnitude(probe.x).flatten(1))


class MapCosine(ExplanationMetric):
    """cos(a, b) with b the map of a reference method for the label, signed, over all entries.

    Args:
        reference: the method that gives b; it is asked once for all methods under test.
    """

    higher_is_better, group, cost = True, "alignment", "expensive"

    def __init__(self, reference: Attribution):
        super().__init__()
        self.reference = reference

    def per_sample(self, probe: Probe) -> Tensor:
        name = f"map of {self.reference}"
        if name not in probe.shared:
            streams = probe.streams("reference")
            probe.shared[name] = self.reference(probe.model, probe.x, probe.y, generator=streams)
        return cosine(probe.map.flatten(1), probe.shared[name].flatten(1))
