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


def autoregressive(rng, n, coefficient):
    """Noise in which each value takes `coefficient` of the one before."""
    noise = rng.standard_normal(n + 100)
    for index in range(1, len(noise)):
        noise[index] += coefficient * noise[index - 1]
    return noise[100:]


def test_the_interval_of_correlated_noise_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    series = [autoregressive(rng, 300, 0.7) for _ in range(120)]
    plain = np.mean([stats.median(one).low <= 0 <= stats.median(one).high for one in series])
    blocks = np.mean([(e := stats.grouped_median(one)).low <= 0 <= e.high for one in series])
    assert plain < 0.75  # As if 300 neighbours were 300 samples.
    assert blocks > 0.85


def test_blocks_are_single_samples_where_neighbours_are_strangers():
    rng = np.random.default_rng(4)
    lengths = [stats.block_length(rng.standard_normal(500)) for _ in range(20)]
    assert np.median(lengths) <= 3
    alike = [stats.block_length(autoregressive(rng, 500, 0.8)) for _ in range(20)]
    assert np.median(alike) >= 8
    assert stats.block_length(np.ones(50)) == 1


def test_one_group_of_strangers_is_the_plain_bootstrap():
    samples = np.random.default_rng(5).standard_normal(2000)
    estimate = stats.grouped_mean(samples)
    half = 1.96 * samples.std(ddof=1) / np.sqrt(len(samples))
    assert estimate.value == pytest.approx(samples.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.15)
    assert stats.grouped_median(samples).value == np.median(samples)


def test_groups_that_differ_widen_the_interval():
    rng = np.random.default_rng(6)
    groups = [level + 0.01 * rng.standard_normal(100) for level in (1.0, 1.1, 1.3)]
    estimate = stats.grouped_median(np.concatenate(groups), (100, 100, 100))
    assert estimate.value == pytest.approx(np.median([np.median(group) for group in groups]))
    # It holds the whole range of the groups: with three of them, the truth may be any of them.
    assert estimate.low < 1.0
    assert estimate.high > 1.3
    apart = [stats.grouped_median(group) for group in groups]
    assert max(one.high - one.low for one in apart) < 0.02
    with pytest.raises(ValueError, match="groups"):
        stats.grouped_median(np.ones(5), (2, 2))


def test_two_wild_groups_of_ten_do_not_move_the_median():
    rng = np.random.default_rng(8)
    groups = [0.97 + 0.003 * rng.standard_normal() + 0.002 * rng.standard_normal(20) for _ in range(10)]
    groups[2] += 0.1
    groups[7] -= 0.08
    estimate = stats.grouped_median(np.concatenate(groups), (20,) * 10)
    assert 0.965 < estimate.low < 0.97 < estimate.high < 0.98
    assert stats.grouped_mean(np.concatenate(groups), (20,) * 10).high > 0.99


def test_the_interval_of_grouped_medians_holds_the_truth():
    rng = np.random.default_rng(9)
    held = 0
    for _ in range(120):
        # Heavy tails: most processes agree, now and then one does not.
        levels = 0.003 * rng.standard_t(2, 10)
        series = np.concatenate([level + 0.002 * rng.standard_normal(10) for level in levels])
        estimate = stats.grouped_median(series, (10,) * 10)
        held += estimate.low <= 0 <= estimate.high
    assert held >= 0.9 * 120


def test_noise_within_groups_is_counted_once():
    """Ten groups that differ by their noise alone: the interval is about as wide as estimates really scatter."""
    rng = np.random.default_rng(10)
    found = [stats.grouped_median(rng.standard_normal(200), (20,) * 10) for _ in range(150)]
    scatter = 2 * stats.Z * np.std([each.value for each in found])
    assert 0.9 < np.mean([each.high - each.low for each in found]) / scatter < 1.3
    assert np.mean([each.low <= 0 <= each.high for each in found]) > 0.92


def test_the_interval_of_a_percentile_holds_the_truth():
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(60):
        found = stats.grouped_percentile(rng.exponential(1.0, 3000), 300, 90)
        inside.append(found.low <= -np.log(0.1) <= found.high)
    assert np.mean(inside) > 0.88
    samples = rng.exponential(1.0, 3000)
    assert stats.grouped_percentile(samples, 300, 90).value == pytest.approx(np.percentile(samples, 90))


def test_a_percentile_that_one_bad_moment_made_has_no_interval():
    samples = np.ones((300, 10)) + 0.01 * np.random.default_rng(8).standard_normal((300, 10))
    samples[150:154] += 5.0  # 40 of 3,000 samples: more than 1 %, all of them neighbours.
    assert stats.percentile(samples.ravel(), 99) > 5
    assert stats.grouped_percentile(samples.ravel(), 300, 99) is None
    assert stats.grouped_percentile(samples.ravel()[:200], 20, 99) is None
    with pytest.raises(ValueError, match="3000 samples of 7 rounds"):
        stats.grouped_percentile(samples.ravel(), 7, 90)


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
