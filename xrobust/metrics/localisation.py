"""The base of the metrics that compare an attribution with the pixels that are known to matter."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from xrobust.errors import UserError
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude


def relevance(attribution: Tensor, signed: bool) -> Tensor:
    """Σ_c |a_c| of each pixel, or, signed, max(Σ_c a_c, 0): (N, C, H, W) → (N, H, W)."""
    return attribution.sum(1).clamp(min=0) if signed else magnitude(attribution)


class LocalisationMetric(ExplanationMetric):
    """A score of r, the relevance of the pixels, against M, the set of those that are known to matter.

    Undefined for a map without relevance, and where no pixel or every pixel matters: there is nothing to find.

    Args:
        signed: whether r = max(Σ_c a_c, 0), the evidence for the label, for methods whose sign tells for from against;
            otherwise r = Σ_c |a_c|.
    """

    higher_is_better, group, cost = True, "localisation", "cheap"
    needs = frozenset({"mask"})

    def __init__(self, signed: bool = False):
        super().__init__()
        self.signed = signed

    @abstractmethod
    def score(self, values: Tensor, mask: Tensor) -> Tensor:
        """r ≥ 0 (N, H, W) and M (N, H, W) bool → (N,); what is undefined for every such metric is taken care of."""

    def per_sample(self, probe: Probe) -> Tensor:
        mask = probe.mask
        if mask is None:
            raise UserError(
                f"{type(self).__name__} needs to know which pixels matter, which these images do not tell: "
                "give data.ground_truth, or take data=block_mnist or data=planted_patch"
            )
        values = relevance(probe.map, self.signed)
        flat, matters = values.flatten(1), mask.flatten(1)
        defined = flat.any(1) & flat.isfinite().all(1) & matters.any(1) & ~matters.all(1)
        return self.score(values, mask).double().where(defined, float("nan"))
