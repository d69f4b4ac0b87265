"""Whether an explanation depends on what is explained."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.map_similarity import similarity_named
from xrobust.metrics.probe import Probe
from xrobust.randomness import uniform_like


def other_class(probe: Probe, purpose: str) -> Tensor:
    """A class drawn uniformly from those that are not the label; the label itself if there is no other: (N,)."""
    classes = probe.logits.shape[1]
    place = uniform_like(probe.logits[:, 0], probe.streams(purpose)).double() * (classes - 1)
    return (probe.y + 1 + place.long()) % classes


class RandomLogit(ExplanationMetric):
    """The similarity of the maps of the label and of a random other class (Sixt et al. 2020).

    In [−1, 1]; NaN where a map has no similarity to others (a constant one for Spearman's), and for a model with
    one class.

    Args:
        similarity: "spearman" or "ssim", of the pixels' Σ_c |a_c|.
    """

    higher_is_better, group, cost = False, "randomisation", "moderate"

    def __init__(self, similarity: str = "spearman"):
        super().__init__()
        self.similarity = similarity_named(similarity, "RandomLogit.similarity")

    @property
    def point(self) -> int:
        return 6  # class discrimination; the other tests of randomisation ask for the weights

    def per_sample(self, probe: Probe) -> Tensor:
        rival = other_class(probe, "random_logit")
        value = self.similarity(probe.map, replace(probe, y=rival, shared={}).map)
        return value.where(rival != probe.y, float("nan"))
