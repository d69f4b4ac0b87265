"""Means over runs, rank correlations, and how sure one can be of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata, t

from xrobust.randomness import mix, uniform_like
from xrobust.report.comparison import MINIMUM

Interval = tuple[float, float]


def mean_interval(values: Sequence[float]) -> tuple[float, Interval | None]:
    """The mean and its 95% Student-t interval; none for one value.

    m ± t(0.975; n − 1) · s/√n, with s² = Σ(vᵢ − m)²/(n − 1). It may leave [0, 1].
    """
    n, array = len(values), np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if n == 1:
        return mean, None
    half = float(t.ppf(0.975, n - 1)) * float(array.std(ddof=1)) / sqrt(n)
    return mean, (mean - half, mean + half)


def spearman(x: NDArray, y: NDArray) -> NDArray:
    """Spearman's ρ along the last axis, ties with their mean rank; NaN where one of the two is constant."""
    a, b = (rankdata(values, axis=-1) for values in (x, y))
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.clip((a * b).sum(-1) / scale, -1, 1)


def correlation(
    x: Sequence[float], y: Sequence[float], resamples: int, seed: int
) -> tuple[float, Interval | None] | None:
    """Spearman's ρ of pairs with its 95% bootstrap interval (Efron 1979): the 2.5th and 97.5th percentile of ρ over
    resamples of the pairs.

    None for fewer than 4 pairs, or if one of the two is constant. Resamples in which one is constant have no ρ and
    do not count; where these are more than half, there is no interval. All correlations of equally many pairs see the
    same resamples.
    """
    pairs = np.asarray([x, y], dtype=np.float64)
    n = pairs.shape[1]
    if n < MINIMUM or np.isnan(rho := spearman(*pairs)):
        return None
    generator = torch.Generator().manual_seed(mix(seed, n))
    drawn = uniform_like(torch.empty(resamples, n), generator).double().mul(n).long().numpy()
    rhos = spearman(*pairs[:, drawn])
    rhos = rhos[~np.isnan(rhos)]
    if 2 * len(rhos) < resamples:
        return float(rho), None
    low, high = np.percentile(rhos, [2.5, 97.5])
    return float(rho), (float(low), float(high))
