import numpy as np
import pytest

from edgekit import stats


def test_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits = 0
    for seed in range(200):
        estimate = stats.mean(rng.normal(3.0, 2.0, 60), seed=seed)
        hits += estimate.low <= 3.0 <= estimate.high
    # 95 % of 200 with a binomial spread of 3.1; the percentile bootstrap is known to be a little narrow.
    assert 180 <= hits <= 199


def test_interval_of_a_mean_is_close_to_the_normal_theory():
    samples = np.random.default_rng(0).normal(10, 3, 5000)
    estimate = stats.mean(samples)
    half = 1.96 * samples.std(ddof=1) / np.sqrt(len(samples))
    assert estimate.value == pytest.approx(samples.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.08)
    assert estimate.n == 5000


def test_paired_ratio_is_blind_to_a_drift_that_both_share():
    rng = np.random.default_rng(1)
    drift = np.linspace(1, 3, 80)
    baseline = 2.0 * drift * rng.normal(1, 0.01, 80)
    candidate = 1.0 * drift * rng.normal(1, 0.01, 80)
    ratio = stats.median_ratio(baseline, candidate)
    assert ratio.low <= 2.0 <= ratio.high
    assert ratio.high - ratio.low < 0.02


@pytest.mark.parametrize(("q", "n"), [(90, 29), (99, 299), (99.9, 2995)])
def test_a_percentile_needs_enough_samples(q, n):
    assert stats.needed_samples(q) == n
    # The definition, by its own formula: with n samples the chance that none exceeds the percentile is at most 5 %.
    assert (q / 100) ** n <= 0.05 < (q / 100) ** (n - 1)
    assert stats.percentile(np.arange(n - 1.0), q) is None
    assert stats.percentile(np.arange(float(n)), q) == pytest.approx(np.percentile(np.arange(float(n)), q))


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    samples = np.random.default_rng(0).random(50)
    assert stats.median(samples, seed=1) == stats.median(samples, seed=1)
    assert stats.median(samples, seed=1) != stats.median(samples, seed=2)


@pytest.mark.parametrize("samples", [np.array([]), np.ones((2, 2))])
def test_wrong_shapes_are_refused(samples):
    with pytest.raises(ValueError, match="one-dimensional"):
        stats.mean(samples)
    with pytest.raises(ValueError, match="equal lengths"):
        stats.median_ratio(np.ones(3), np.ones(4))
