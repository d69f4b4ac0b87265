"""Whether an attribution looks like the image."""

from __future__ import annotations

from torch import Tensor

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe


def alignment(images: Tensor, maps: Tensor) -> Tensor:
    """|⟨x, a⟩| / ‖a‖₂: (N, d), (N, d) → (N,).

    In [0, ‖x‖₂], by Cauchy–Schwarz; NaN if the image or the map is zero, where there is no direction to
    compare.
    """
    images, maps = images.double(), maps.double()
    value = (images * maps).sum(1).abs() / maps.norm(dim=1)
    return value.where(images.any(1), float("nan"))


def centred(values: Tensor) -> Tensor:
    """Each row without its mean, in float64, exactly zero for a constant row: (N, d) → (N, d)."""
    constant = values.amax(1, keepdim=True) == values.amin(1, keepdim=True)
    values = values.double()
    return (values - values.mean(1, keepdim=True)).masked_fill(constant, 0)


class EtmannAlignment(ExplanationMetric):
    """|⟨x, a⟩| / ‖a‖₂ (Etmann et al. 2019, where a is the gradient of the predicted class's logit).

    For a binary classifier ⟨w, x⟩ and its gradient it is the distance to the decision boundary.
    """

    higher_is_better, group, cost = True, "alignment", "cheap"

    def per_sample(self, probe: Probe) -> Tensor:
        return alignment(probe.x.flatten(1), probe.map.flatten(1))


class MeanSubtractedAlignment(ExplanationMetric):
    """|⟨x − x̄, a − ā⟩| / ‖a − ā‖₂, means over all entries of an image: blind to its brightness."""

    higher_is_better, group, cost = True, "alignment", "cheap"

    def per_sample(self, probe: Probe) -> Tensor:
        return alignment(centred(probe.x.flatten(1)), centred(probe.map.flatten(1)))
