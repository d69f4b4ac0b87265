"""Whether the relevance of a random set of pixels tells what its removal does to the label."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xrobust.attributions import ImageMean
from xrobust.attributions.baselines import Baseline
from xrobust.errors import at_least
from xrobust.metrics.alignment import centred
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.changed_images import label_drops
from xrobust.metrics.perturbations import check_share, pixel_count, random_pixels
from xrobust.metrics.probe import Probe
from xrobust.randomness import SampleStreams

MEAN = ImageMean()


def pearson_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of each row: (N, n), (N, n) → (N,) float64.

    In [−1, 1]; NaN if a row is constant or not finite.
    """
    first, second = centred(first), centred(second)
    return ((first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))).clamp(-1, 1)


def subset_correlation(probe: Probe, size: int, samples: int, baseline: Baseline, streams: SampleStreams) -> Tensor:
    """Pearson's correlation of Σ_{i∈S} a_i and f_y(x) − f_y(x_S) over random sets S of `size` pixels: (N,).

    x_S has the pixels of S, all channels at once, taken from the baseline, and Σ is over their channels, too.
    NaN where one of the two sides does not vary, as for a map that is the same everywhere.
    """
    relevance, absent = probe.map.sum(1).flatten(1).double(), baseline(probe.x)
    sums = []

    def copies() -> Iterator[Tensor]:
        for _ in range(samples):
            chosen = random_pixels(probe.x, size, streams)
            sums.append((relevance * chosen.flatten(1)).sum(1))
            yield absent.where(chosen, probe.x)

    drops = label_drops(probe, copies())
    varied = relevance.amax(1) > relevance.amin(1)  # sums of equal numbers differ by their rounding only
    return pearson_correlation(torch.stack(sums, 1), drops).where(varied, float("nan"))


class FaithfulnessCorrelation(ExplanationMetric):
    """corr_S(Σ_{i∈S} a_i, f_y(x) − f_y(x_S)), S random sets of one size (Bhatt et al. 2020).

    In [−1, 1]; 1 for the gradient times the difference to the baseline of a linear model. NaN where a side does
    not vary.

    Args:
        share: the size of S as a share of the pixels, in (0, 1); at least one pixel, and not all.
        samples: sets that are drawn for each image, ≥ 2.
        baseline: images → images without information; the paper takes a mean.
    """

    higher_is_better, group, cost = True, "faithfulness", "expensive"

    def __init__(self, share: float = 0.2, samples: int = 50, baseline: Baseline = MEAN):
        super().__init__()
        check_share("FaithfulnessCorrelation.share", share)
        at_least("FaithfulnessCorrelation", 2, samples=samples)
        self.share, self.samples, self.baseline = share, samples, baseline

    def per_sample(self, probe: Probe) -> Tensor:
        size = pixel_count(self.share, probe.x.shape[-2] * probe.x.shape[-1])
        streams = probe.streams("faithfulness_correlation")
        return subset_correlation(probe, size, self.samples, self.baseline, streams)
