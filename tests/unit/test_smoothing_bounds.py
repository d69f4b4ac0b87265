"""Binomial bounds, evidence and radii: closed forms, exact arithmetic, and coverage by simulation."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

from xrobust.errors import UserError
from xrobust.smoothing import GaussianNoise, UniformNoise, log_evidence_above, log_evidence_below, lower_bound
from xrobust.smoothing.bounds import largest_lower_bound, votes_needed
from xrobust.smoothing.certify_at import CERTIFIED, OPEN, REFUSED, decide, looks

REPETITIONS = 10_000


def rate_allowed(alpha: float) -> float:
    """What a failure rate of α gives in so many repetitions, with four standard deviations of room."""
    return alpha + 4 * math.sqrt(alpha * (1 - alpha) / REPETITIONS)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize(("k", "n"), [(0, 10), (1, 10), (7, 10), (10, 10), (98_700, 100_000), (100_000, 100_000)])
def test_the_lower_bound_is_scipys(k: int, n: int, alpha: float) -> None:
    theirs = binomtest(k, n, alternative="greater").proportion_ci(1 - alpha, "exact").low
    ours = lower_bound(k, n, alpha).item()
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert lower_bound([k, k], n, alpha).tolist() == [ours, ours]


@pytest.mark.parametrize(("k", "n"), [(1, 12), (9, 12), (12, 12), (55, 60)])
def test_in_exact_arithmetic_the_tail_at_the_bound_is_at_most_alpha(k: int, n: int) -> None:
    for alpha in (0.001, 0.3):
        p = Fraction(float(lower_bound(k, n, alpha)))
        tail = sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))
        assert Fraction(alpha) * Fraction(1 - 1e-9) < tail <= Fraction(alpha)


@pytest.mark.parametrize("p", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_the_bound_exceeds_the_truth_as_seldom_as_it_says(p: float, alpha: float) -> None:
    k = np.random.default_rng(0).binomial(1000, p, REPETITIONS)
    assert (lower_bound(k, 1000, alpha) > p).mean() <= rate_allowed(alpha)
    assert (lower_bound(k, 1000, 0.4) > p).mean() > 0.2, "a level of 0.4 is seen to be missed"


def test_no_count_proves_more_than_the_largest_bound() -> None:
    assert largest_lower_bound(1000, 0.001) == pytest.approx(lower_bound(1000, 1000, 0.001).item(), rel=1e-11)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_votes_needed_are_those_of_the_exact_two_sided_test(alpha: float) -> None:
    needed = votes_needed(60, alpha)
    for m in range(1, 61):
        rejects = [2 * k > m and binomtest(k, m, 0.5).pvalue <= alpha for k in range(m + 1)]
        assert needed[m] == (rejects.index(True) if any(rejects) else m + 1), m
    assert needed[0] == 1


# The evidence against p ≤ p₀, looked at as `CertifyAt` does.


def test_evidence_is_the_integral_of_its_definition() -> None:
    k, t, p0 = 45, 50, 0.7
    q = np.linspace(p0, 1, 2_000_001)[1:-1]
    weight = q**-0.5 * (1 - q) ** -0.5
    by_quadrature = (q**k * (1 - q) ** (t - k) * weight).sum() / weight.sum() / (p0**k * (1 - p0) ** (t - k))
    assert log_evidence_above(k, t, p0).item() == pytest.approx(math.log(by_quadrature), rel=1e-3)
    assert log_evidence_above(0, 0, p0).item() == pytest.approx(0, abs=2e-6)
    assert log_evidence_below(t - k, t, 1 - p0).item() == pytest.approx(log_evidence_above(k, t, p0).item(), abs=1e-9)


@pytest.mark.parametrize("p0", [0.5, 0.7, 0.95])
def test_evidence_is_a_martingale_at_the_threshold_and_falls_below_it(p0: float) -> None:
    """E[M_{t+1} | k] = M_t, summed over both outcomes of the next sample."""
    for t, k in ((0, 0), (10, 9), (200, 190)):
        now = log_evidence_above(k, t, p0).item()
        for p, relation in ((p0, "equal"), (0.8 * p0, "below")):
            following = [math.exp(log_evidence_above(k + s, t + 1, p0).item() - now) for s in (0, 1)]
            expected = (1 - p) * following[0] + p * following[1]
            assert expected == pytest.approx(1, abs=1e-5) if relation == "equal" else expected < 1


def sequences(p: float, n: int, alpha: float, threshold: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Answers and samples spent of many runs with known p, looked at as the procedure does."""
    random = np.random.default_rng(seed)
    counts, spent = np.zeros(REPETITIONS, np.int64), 0
    answers, used = np.full(REPETITIONS, OPEN), np.zeros(REPETITIONS, np.int64)
    for look in looks(n):
        is_open = answers == OPEN
        counts[is_open] += random.binomial(look - spent, p, is_open.sum())
        used[is_open], spent = look, look
        answers[is_open] = decide(counts[is_open], look, threshold, alpha, last=look == n)
    return answers, used


@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_looking_again_and_again_keeps_the_guarantee(threshold: float, alpha: float) -> None:
    answers, _ = sequences(threshold, 2000, alpha, threshold)
    assert (answers == CERTIFIED).mean() <= rate_allowed(alpha)
    assert not (answers == OPEN).any()
    naive = np.zeros(REPETITIONS, bool)  # the planted fault: the fixed bound, looked at again and again
    random, counts, spent = np.random.default_rng(0), np.zeros(REPETITIONS, np.int64), 0
    for look in looks(2000):
        counts += random.binomial(look - spent, threshold, REPETITIONS)
        spent = look
        naive |= lower_bound(counts, look, alpha) > threshold
    assert naive.mean() > rate_allowed(alpha)


def test_a_true_radius_is_seldom_given_up_early() -> None:
    answers, used = sequences(0.9, 2000, 0.05, 0.9 - 1e-9)
    assert ((answers == REFUSED) & (used < 2000)).mean() <= rate_allowed(0.05)


@pytest.mark.parametrize("p", [0.55, 0.7, 0.99, 0.999, 0.9999])
def test_clear_answers_need_less_than_half_of_the_samples(p: float) -> None:
    threshold = norm.cdf(0.5 / 0.5)  # radius σ
    answers, used = sequences(p, 10_000, 0.001, threshold)
    assert used.mean() < 0.1 * 10_000
    assert (answers == (CERTIFIED if p > threshold else REFUSED)).mean() > 0.99


def test_it_certifies_nearly_what_all_samples_would() -> None:
    """At p where CERTIFY with n samples succeeds in about nine of ten runs, so does the sequential version."""
    threshold, n, alpha = norm.cdf(1.0), 10_000, 0.001
    p = threshold + 0.016
    k = np.random.default_rng(1).binomial(n, p, REPETITIONS)
    fixed = (lower_bound(k, n, alpha) > threshold).mean()
    answers, _ = sequences(p, n, alpha, threshold)
    assert fixed > 0.85 and (answers == CERTIFIED).mean() > fixed - 0.05


def test_looks_end_with_the_last_sample() -> None:
    for n in (1, 64, 65, 1000, 100_000):
        found = looks(n)
        assert found[-1] == n and (np.diff([0, *found]) > 0).all() and len(found) < 60


# Radii.


def test_gaussian_radii_are_cohens() -> None:
    noise = GaussianNoise(sigma=0.5)
    p = np.array([0.2, 0.5, 0.7, 0.999])
    np.testing.assert_allclose(
        noise.radius(p, "l2", 784), [0, 0, 0.5 * norm.ppf(0.7), 0.5 * norm.ppf(0.999)], rtol=1e-9
    )
    np.testing.assert_array_equal(noise.radius(p, "l1", 784), noise.radius(p, "l2", 784))
    np.testing.assert_allclose(noise.radius(p, "linf", 784), noise.radius(p, "l2", 784) / 28, rtol=1e-12)


def test_uniform_radii_are_those_of_yang() -> None:
    noise = UniformNoise(sigma=0.5)
    half_width = math.sqrt(3) / 2
    l1 = noise.radius([0.4, 0.9], "l1", 100)
    np.testing.assert_allclose(l1, [0, 2 * half_width * 0.4], rtol=1e-9)
    np.testing.assert_allclose(noise.radius([0.4, 0.9], "l2", 100), l1 / 10, rtol=1e-12)
    np.testing.assert_allclose(noise.radius([0.4, 0.9], "linf", 100), l1 / 100, rtol=1e-12)


@pytest.mark.parametrize("noise", [GaussianNoise(sigma=0.25), UniformNoise(sigma=0.25)])
@pytest.mark.parametrize("norm_", ["l2", "l1", "linf"])
def test_the_threshold_of_a_radius_is_worth_at_least_that_radius(noise, norm_: str) -> None:
    for radius in [0.0, *noise.radius([0.6, 0.9], norm_, 64).tolist()]:
        threshold = noise.threshold(radius, norm_, 64)
        assert noise.radius(threshold + 1e-11, norm_, 64) >= radius
        assert noise.radius(threshold, norm_, 64) == pytest.approx(radius, abs=1e-9)


def test_draws_have_the_standard_deviation_that_is_asked_for() -> None:
    for noise in (GaussianNoise(sigma=0.3), UniformNoise(sigma=0.3)):
        drawn = noise.fill(torch.empty(100_000), torch.Generator().manual_seed(0))
        assert drawn.std().item() == pytest.approx(0.3, rel=0.02) and abs(drawn.mean().item()) < 0.005
    assert drawn.abs().max() <= UniformNoise(sigma=0.3).half_width


@pytest.mark.parametrize("sigma", [0, -1, math.nan, math.inf, "a"])
def test_a_standard_deviation_that_is_none_is_refused(sigma) -> None:
    with pytest.raises(UserError, match=r"GaussianNoise\.sigma must be above 0"):
        GaussianNoise(sigma=sigma)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(UserError, match="norm must be one of 'linf', 'l2', 'l1'"):
        GaussianNoise(sigma=1.0).radius(0.9, "l3", 10)
