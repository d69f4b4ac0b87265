"""Whether the pixels that an attribution calls important matter to the prediction."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from xrobust.attributions import Constant, GaussianBlur
from xrobust.attributions.baselines import Baseline
from xrobust.errors import UserError
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.probe import Probe, magnitude

BLACK, BLURRED = Constant(0.0), GaussianBlur()


def flip_ranks(importance: Tensor) -> Tensor:
    """Each pixel's place, from 0 for the most important; of equal ones the first: (N, d) → (N, d)."""
    return importance.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


class PixelFlipping(ExplanationMetric):
    """∫₀¹ p_y(x_s) ds, where x_s has the share s of the most important pixels taken from another image.

    Pixels go, all channels at once, in the order of their importance; the integral is a trapezoid rule over
    `steps` equal parts, rounded to whole pixels (Petsiuk et al. 2018). In [0, 1]; NaN for a zero map, which
    ranks nothing.

    Args:
        steps: parts, ≥ 1.
        baseline: images → images without information.
        signed: rank by Σ_c a_c, which puts evidence against the label last, instead of by Σ_c |a_c|; for
            methods whose sign tells for from against (integrated gradients, not the plain gradient).
    """

    group, cost = "faithfulness", "expensive"

    def __init__(self, steps: int, baseline: Baseline, signed: bool):
        super().__init__()
        if steps < 1:
            raise UserError(f"{type(self).__name__}.steps must be at least 1, got {steps}")
        self.steps, self.baseline, self.signed = steps, baseline, signed

    @abstractmethod
    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The image before any pixel is flipped and the one after all are."""

    def per_sample(self, probe: Probe) -> Tensor:
        importance = (probe.map.sum(1) if self.signed else magnitude(probe.map)).flatten(1)
        pixels = importance.shape[1]
        ranks = flip_ranks(importance).view(len(probe), 1, *probe.x.shape[-2:])
        start, end = self.ends(probe.x)
        counts = [round(step * pixels / self.steps) for step in range(self.steps + 1)]
        curve = torch.stack([self._label_probability(probe, torch.where(ranks < n, end, start)) for n in counts], 1)
        shares = torch.tensor(counts, dtype=torch.float64, device=curve.device) / pixels
        ranked = importance.any(1) & importance.isfinite().all(1)
        return torch.trapezoid(curve, shares, dim=1).where(ranked, float("nan"))

    @staticmethod
    def _label_probability(probe: Probe, points: Tensor) -> Tensor:
        return probe.logits_at(points).double().softmax(1).gather(1, probe.y[:, None])[:, 0]


class DeletionAUC(PixelFlipping):
    """Pixel flipping from the image to a baseline, black by default: a faithful map loses the label soon."""

    higher_is_better = False

    def __init__(self, steps: int = 28, baseline: Baseline = BLACK, signed: bool = False):
        super().__init__(steps, baseline, signed)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.baseline(x)


class InsertionAUC(PixelFlipping):
    """Pixel flipping from a baseline, blurred by default, to the image: a faithful map finds it soon."""

    higher_is_better = True

    def __init__(self, steps: int = 28, baseline: Baseline = BLURRED, signed: bool = False):
        super().__init__(steps, baseline, signed)

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.baseline(x), x
