"""Whether an attribution orders the pixels better than chance."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from xrobust.attributions import RandomMap
from xrobust.attributions.baselines import Baseline
from xrobust.errors import at_least
from xrobust.metrics.pixel_flipping import BLACK, BLURRED, DeletionAUC, InsertionAUC, PixelFlipping
from xrobust.metrics.probe import Probe
from xrobust.randomness import mix


class VersusRandom(PixelFlipping):
    """By how much the order of the map beats random orders of the pixels: what the map itself knows.

    In [−1, 1]; 0 in expectation for a map that knows nothing; NaN for a zero map.

    Args:
        steps, baseline, signed: see `PixelFlipping`.
        orderings: random orders of each sample's own that are averaged, ≥ 1.

    Class attributes:
        sign: 1 if the plain score is the better the higher it is, −1 otherwise.
    """

    higher_is_better = True
    sign: ClassVar[int]

    def __init__(self, steps: int, baseline: Baseline, signed: bool, orderings: int):
        super().__init__(steps, baseline, signed)
        at_least(type(self).__name__, 1, orderings=orderings)
        self.orderings = orderings

    def per_sample(self, probe: Probe) -> Tensor:
        blind = [
            replace(probe, method=RandomMap(), seed=mix(probe.seed, ordering), shared={})
            for ordering in range(self.orderings)
        ]
        chance = torch.stack([super(VersusRandom, self).per_sample(each) for each in blind]).mean(0)
        return self.sign * (super().per_sample(probe) - chance)


class DeletionVersusRandom(VersusRandom, DeletionAUC):
    """`DeletionAUC` of random orders minus that of the map (after Petsiuk et al. 2018)."""

    sign = -1

    def __init__(self, steps: int = 28, baseline: Baseline = BLACK, signed: bool = False, orderings: int = 1):
        super().__init__(steps, baseline, signed, orderings)


class InsertionVersusRandom(VersusRandom, InsertionAUC):
    """`InsertionAUC` of the map minus that of random orders (after Petsiuk et al. 2018)."""

    sign = 1

    def __init__(self, steps: int = 28, baseline: Baseline = BLURRED, signed: bool = False, orderings: int = 1):
        super().__init__(steps, baseline, signed, orderings)
