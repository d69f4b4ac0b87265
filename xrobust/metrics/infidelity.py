"""Whether an attribution foretells what a change of the image does to the label."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xrobust.errors import at_least
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.changed_images import label_drops
from xrobust.metrics.perturbations import Perturbation, PixelNoise
from xrobust.metrics.probe import Probe

NOISE = PixelNoise()


def infidelity(foretold: Tensor, drops: Tensor, optimal_scale: bool, relative: bool) -> Tensor:
    """E[(β·Iᵀa − Δ)²], Δ = f(x) − f(x − I), from n draws of both: (N, n), (N, n) → (N,) float64.

    Args:
        optimal_scale: β = E[(Iᵀa)Δ] / E[(Iᵀa)²], which makes the value smallest, instead of 1.
        relative: divide by E[Δ²], the value of a map that foretells nothing; NaN where it is zero.
    """
    foretold, drops = foretold.double(), drops.double()
    if optimal_scale:
        foretold = foretold * ((foretold * drops).sum(1) / foretold.square().sum(1))[:, None]
    error, size = (foretold - drops).square().mean(1), drops.square().mean(1)
    return (error / size).where(size > 0, float("nan")) if relative else error


class Infidelity(ExplanationMetric):
    """E_I[(Iᵀa − (f_y(x) − f_y(x − I)))²] over random changes I of the image (Yeh et al. 2019).

    In [0, ∞); in [0, 1] if relative with the optimal scale: the share of the drop's mean square that the map does
    not foretell. 0 for the gradient of a linear model. NaN for a zero map; where no change moves the logit, if
    relative; where the map foretells no drop at all, if optimally scaled.

    Args:
        perturbation: draws x − I.
        samples: draws for each image, ≥ 1; at least 2 if optimally scaled, since one is always foretold.
        optimal_scale: scale each map by the factor that fits best.
        relative: divide by E[(f_y(x) − f_y(x − I))²], which makes models with different logits comparable.
    """

    higher_is_better, group, cost = False, "faithfulness", "expensive"

    def __init__(
        self,
        perturbation: Perturbation = NOISE,
        samples: int = 50,
        optimal_scale: bool = False,
        relative: bool = False,
    ):
        super().__init__()
        at_least("Infidelity", 2 if optimal_scale else 1, samples=samples)
        self.perturbation, self.samples = perturbation, samples
        self.optimal_scale, self.relative = optimal_scale, relative

    def per_sample(self, probe: Probe) -> Tensor:
        streams, relevance = probe.streams("infidelity"), probe.map.flatten(1).double()
        foretold = []

        def copies() -> Iterator[Tensor]:
            for _ in range(self.samples):
                changed = self.perturbation(probe.x, streams)
                foretold.append(((probe.x - changed).flatten(1) * relevance).sum(1))
                yield changed

        drops = label_drops(probe, copies())
        value = infidelity(torch.stack(foretold, 1), drops, self.optimal_scale, self.relative)
        return value.where(relevance.any(1), float("nan"))
