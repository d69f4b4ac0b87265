"""What counts say of a probability: exact binomial bounds and tests."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv

from xrobust.errors import UserError

SLACK = 1e-12  # by which bounds move outwards, relative: more than what their computation rounds


def check_level(place: str, alpha: float) -> float:
    """α, if it is a failure probability in (0, 1/2)."""
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < 0.5:
        raise UserError(f"{place}.alpha must lie between 0 and 0.5, got {alpha!r}")
    return alpha


def lower_bound(successes: ArrayLike, trials: ArrayLike, alpha: float) -> NDArray:
    """The one-sided lower bound of p at level 1 − α from k ~ Bin(n, p) (Clopper & Pearson 1934).

    The p at which P(K ≥ k) = α, that is the α-quantile of Beta(k, n − k + 1), and 0 for k = 0; rounded downwards. For
    every p, it exceeds p with probability at most α.

    Args:
        successes: k, integers of any shape.
        trials: n ≥ k.
        alpha: in (0, 1/2).

    Returns:
        float64 in [0, 1).
    """
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(trials, np.float64))
    found = betaincinv(np.maximum(k, 1), n - k + 1, alpha)
    return np.where(k > 0, found * (1 - SLACK), 0.0)


def votes_needed(trials: int, alpha: float) -> NDArray:
    """How many of m fair coins must fall on one side to reject fairness at level α, for m = 0 … n.

    The least k with 2 · P(Bin(m, 1/2) ≥ k) ≤ α, the exact two-sided test; m + 1 where no k is enough.

    Returns:
        (n + 1,) int64.
    """
    m = np.arange(trials + 1)
    too_few, enough = np.zeros_like(m), m + 1
    while (open_ := enough - too_few > 1).any():
        middle = np.where(open_, (too_few + enough) // 2, enough)
        rejects = 2 * betainc(middle, np.maximum(m - middle + 1, 1), 0.5) <= alpha  # P(Bin(m, 1/2) ≥ k)
        enough = np.where(open_ & rejects, middle, enough)
        too_few = np.where(open_ & ~rejects, middle, too_few)
    return enough.astype(np.int64)


def largest_lower_bound(trials: int, alpha: float) -> float:
    """The lower bound after n successes in n trials, α^(1/n): no count proves a larger p."""
    return math.exp(math.log(alpha) / trials) * (1 - SLACK)
