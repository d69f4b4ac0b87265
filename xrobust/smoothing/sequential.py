"""Is p above a threshold? An answer that may be asked for at any time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincc, betaln, xlog1py, xlogy

PRIOR = 0.5  # both parameters of the Beta prior: Jeffreys'
ROUNDING = 1e-6  # of the logarithm, for up to 10⁹ trials


def log_evidence_above(successes: ArrayLike, trials: ArrayLike, threshold: float) -> NDArray:
    """log of the evidence M_t against p ≤ p₀ from k successes in t trials.

    M_t = ∫_{p₀}^1 q^k (1 − q)^{t−k} w(q) dq / (p₀^k (1 − p₀)^{t−k}),

    with w Jeffreys' prior, Beta(1/2, 1/2), cut to (p₀, 1) (Robbins 1970). For each q > p₀ the likelihood ratio grows
    with every success, so M is a martingale at p = p₀ and a supermartingale below. By Ville's inequality it ever
    reaches 1/α with probability at most α, however often one looks: p > p₀ is shown at level α as soon as
    log M_t ≥ log(1/α).

    Returns:
        float64, −∞ where there is no evidence at all; rounded downwards.
    """
    return _log_evidence(successes, trials, threshold, betaincc)


def log_evidence_below(successes: ArrayLike, trials: ArrayLike, threshold: float) -> NDArray:
    """The same against p ≥ p₀, with the prior cut to (0, p₀)."""
    return _log_evidence(successes, trials, threshold, betainc)


def _log_evidence(successes: ArrayLike, trials: ArrayLike, threshold: float, mass: np.ufunc) -> NDArray:
    k = np.asarray(successes, np.float64)
    failures = np.asarray(trials, np.float64) - k
    a, b = PRIOR + k, PRIOR + failures
    with np.errstate(divide="ignore"):  # the share of the posterior on the other side may underflow
        mixed = betaln(a, b) + np.log(mass(a, b, threshold))
    prior = betaln(PRIOR, PRIOR) + np.log(mass(PRIOR, PRIOR, threshold))
    return mixed - prior - xlogy(k, threshold) - xlog1py(failures, -threshold) - ROUNDING
