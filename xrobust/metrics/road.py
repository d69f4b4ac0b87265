"""Remove and debias (ROAD): pixel removal that leaves no trace of where the pixels were."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from xrobust.errors import UserError, at_least, one_of
from xrobust.metrics.base import ExplanationMetric
from xrobust.metrics.changed_images import logits_of_each, of_label
from xrobust.metrics.imputation import linear_imputation
from xrobust.metrics.perturbations import check_share, pixel_count
from xrobust.metrics.pixel_flipping import flip_ranks
from xrobust.metrics.probe import Probe, magnitude
from xrobust.randomness import normal_like

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def prediction_kept(probe: Probe, logits: Tensor) -> Tensor:
    """Whether the predicted class is still that of the whole image, 0 or 1, whatever the label: (n, N, K) → (n, N)."""
    return (logits.argmax(2) == probe.prediction).double()


def label_probability(probe: Probe, logits: Tensor) -> Tensor:
    """softmax(f)_y: (n, N, K) → (n, N)."""
    return of_label(logits.double().softmax(2), probe)


MEASURES: dict[str, Callable[[Probe, Tensor], Tensor]] = {
    measure.__name__: measure for measure in (prediction_kept, label_probability)
}


class ROAD(ExplanationMetric):
    """The mean over shares s of what is left when the share s of the pixels is imputed (Rong et al. 2022).

    Removed pixels, all channels at once, are the weighted means of their neighbours (`linear_imputation`) plus
    Gaussian noise; both orders and all maps see the same noise. In [0, 1], and the difference of two orders in
    [−1, 1]. NaN for a zero map, which ranks nothing.

    Args:
        shares: the shares s, each in (0, 1); at least one pixel, and not all.
        noise: standard deviation, ≥ 0.
        measure: what is left: "prediction_kept" or "label_probability".
    """

    group, cost = "faithfulness", "expensive"

    def __init__(self, shares: Sequence[float] = SHARES, noise: float = 0.01, measure: str = "prediction_kept"):
        super().__init__()
        if not shares:
            raise UserError(f"{type(self).__name__}.shares must hold at least one share")
        for share in shares:
            check_share(f"{type(self).__name__}.shares", share)
        at_least(type(self).__name__, 0.0, noise=noise)
        if measure not in MEASURES:
            raise one_of(f"{type(self).__name__}.measure", measure, list(MEASURES))
        self.shares, self.noise, self.measure = tuple(shares), noise, measure

    def left(self, probe: Probe, relevant_first: bool) -> Tensor:
        """The mean of the measure over the shares, for one order of removal: (N,)."""
        relevance = magnitude(probe.map).flatten(1)
        pixels, streams = relevance.shape[1], probe.streams("road")
        ranks = flip_ranks(relevance).view(len(probe), 1, *probe.x.shape[-2:])

        def copies() -> Iterator[Tensor]:
            for share in self.shares:
                count = pixel_count(share, pixels)
                missing = ranks < count if relevant_first else ranks >= pixels - count
                noise = self.noise * normal_like(probe.x, streams).to(probe.x.dtype)
                yield linear_imputation(probe.x, missing) + noise.where(missing, 0)

        left = MEASURES[self.measure](probe, logits_of_each(probe, copies())).mean(0)
        ranked = relevance.any(1) & relevance.isfinite().all(1)
        return left.where(ranked, float("nan"))


class ROADMostRelevantFirst(ROAD):
    """ROAD, the most relevant pixels first (MoRF): a faithful map loses the class soon."""

    higher_is_better = False

    def per_sample(self, probe: Probe) -> Tensor:
        return self.left(probe, relevant_first=True)


class ROADLeastRelevantFirst(ROAD):
    """ROAD, the least relevant pixels first (LeRF): a faithful map keeps the class long."""

    higher_is_better = True

    def per_sample(self, probe: Probe) -> Tensor:
        return self.left(probe, relevant_first=False)


class ROADDifference(ROAD):
    """LeRF − MoRF: what the order of the map is worth; 0 in expectation for a random one."""

    higher_is_better = True

    def per_sample(self, probe: Probe) -> Tensor:
        return self.left(probe, relevant_first=False) - self.left(probe, relevant_first=True)
