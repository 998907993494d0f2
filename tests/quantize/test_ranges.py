"""Ranges against numpy on all samples at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import QuantizeError
from edgekit.quantize.ranges import BINS, Histogram, affine, choose, symmetric
from edgekit.quantize.weights import mse_scales, quantized_weight, weight_scales, without_overflow


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    # Skewed, with a far tail: what an activation behind a ReLU looks like.
    return np.concatenate([rng.gamma(2.0, 1.0, 60_000), rng.normal(0, 0.5, 40_000), [30.0]]).astype(np.float32)


def counted(samples, pieces):
    histogram = Histogram()
    for piece in np.array_split(samples, pieces):
        histogram.add(piece)
    return histogram


def squared_error(samples, low, high):
    step = (high - low) / 255
    zero = round(-low / step)
    return float((((np.clip(np.round(samples / step) + zero, 0, 255) - zero) * step - samples) ** 2).sum())


@pytest.mark.parametrize("pieces", [1, 7, 100])
def test_a_stream_is_counted_as_numpy_counts_the_whole(samples, pieces):
    histogram = counted(samples, pieces)
    edges = np.linspace(-histogram.limit, histogram.limit, BINS + 1)
    want, _ = np.histogram(samples.astype(np.float64), edges)
    assert (histogram.low, histogram.high) == (float(samples.min()), 30.0)
    assert histogram.counts.sum() == len(samples)
    # Values on an edge may fall to either side of it.
    assert np.abs(np.cumsum(histogram.counts) - np.cumsum(want)).max() <= 3


def test_memory_does_not_depend_on_the_stream(samples):
    assert counted(samples, 1).counts.nbytes == counted(np.tile(samples, 5) * 1000, 50).counts.nbytes


def test_minmax_takes_everything_and_holds_zero(samples):
    assert choose(counted(samples, 3), "minmax") == (float(samples.min()), 30.0)
    assert choose(counted(np.array([2.0, 5.0]), 1), "minmax") == (0.0, 5.0)
    assert choose(counted(np.array([-2.0, -1.0]), 1), "minmax") == (-2.0, 0.0)


def test_percentile_is_numpys(samples):
    histogram = counted(samples, 5)
    low, high = choose(histogram, "percentile")
    width = 2 * histogram.limit / BINS
    assert low == pytest.approx(np.percentile(samples, 0.005), abs=2 * width)
    assert high == pytest.approx(np.percentile(samples, 99.995), abs=2 * width)


def test_mse_finds_the_range_with_the_least_error_on_the_samples_themselves(samples):
    low, high = choose(counted(samples, 5), "mse")
    found = squared_error(samples, low, high)
    every = [squared_error(samples, samples.min() * share, 30.0 * share) for share in np.linspace(0.2, 1.0, 200)]
    assert found <= 1.02 * min(every)
    assert found < 0.95 * squared_error(samples, float(samples.min()), 30.0)


def test_a_constant_zero_has_a_range_too():
    histogram = counted(np.zeros(10), 2)
    assert choose(histogram, "mse") == (0.0, 0.0)
    assert affine(0.0, 0.0, "uint8") == (1.0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(bad):
    with pytest.raises(QuantizeError) as caught:
        Histogram().add(np.array([1.0, bad]), "relu_3")
    assert str(caught.value) == (
        "NaN or infinite for a calibration sample\n"
        "  where: value 'relu_3'\n"
        "  rule: all activations are finite\n"
        "  way out: look for NaN in the data, and for overflow in the model"
    )


@given(st.floats(-1e6, 0), st.floats(0, 1e6), st.sampled_from(["uint8", "int8"]))
def test_zero_is_exact_and_the_ends_are_within_half_a_step(low, high, dtype):
    scale, zero = affine(low, high, dtype)
    limits = np.iinfo(dtype)
    assert limits.min <= zero <= limits.max
    if high - low > 1e-30:
        assert (limits.min - zero) * scale <= low + 0.5001 * scale
        assert (limits.max - zero) * scale >= high - 0.5001 * scale


@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-100, 100, width=32)
    ),
    st.sampled_from([63, 127]),
)
def test_weights_are_within_half_a_step_and_within_the_limit(weight, limit):
    scales = weight_scales(weight, 0, limit)
    integers = quantized_weight(weight, scales, 0, limit)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() <= limit
    tiny = np.abs(weight).max(tuple(range(1, weight.ndim))) / limit < np.finfo(np.float32).tiny
    assert (scales[tiny] == 1.0).all()
    real = integers * scales.reshape(-1, *[1] * (weight.ndim - 1))
    assert (np.abs(real - weight) <= scales.reshape(-1, *[1] * (weight.ndim - 1)) * 0.5001).all()


def divergence_by_scipy(samples, low, high):
    """KL of what 256 integers can tell apart from the histogram itself, bin by bin, with scipy's entropy."""
    from scipy.stats import entropy

    bins = np.linspace(-np.abs(samples).max(), np.abs(samples).max(), BINS + 1)
    counts, centres = np.histogram(samples, bins)[0], (bins[1:] + bins[:-1]) / 2
    step = (high - low) / 255
    zero = round(-low / step)
    counts[BINS // 2] = 0  # Zero is exact.
    inside = (centres >= low) & (centres <= high) & (counts > 0)
    group = np.clip(np.round(centres / step) + zero, 0, 255)
    told = np.zeros(BINS)
    for integer in np.unique(group[inside]):
        members = inside & (group == integer)
        told[members] = counts[members].sum() / members.sum()
    wanted = np.where(inside, counts, 0).astype(float)
    used = np.flatnonzero(inside)
    wanted[used[0]] += counts[centres < low].sum()
    wanted[used[-1]] += counts[centres > high].sum()
    return entropy(wanted[inside], told[inside])


@pytest.mark.parametrize("zeros", [0, 100_000])
def test_entropy_finds_the_range_with_the_least_divergence(samples, zeros):
    samples = np.concatenate([samples, np.zeros(zeros, np.float32)])
    low, high = choose(counted(samples, 1), "entropy")
    assert high < samples.max()
    found = divergence_by_scipy(samples, low, high)
    shares = np.linspace(0.2, 1.0, 100)
    every = [divergence_by_scipy(samples, samples.min() * share, samples.max() * share) for share in shares]
    assert found <= min(every) * 1.05 + 1e-4
    assert found < every[-1]


@pytest.mark.parametrize("axis", [0, 1])
def test_mse_scales_of_weights_have_the_least_error_of_a_finer_grid(axis):
    weight = np.random.default_rng(0).standard_t(3, (40, 40)).astype(np.float32)
    limit = 7  # Few levels, so that clipping pays.
    scales = mse_scales(weight, axis, limit)
    largest = np.abs(weight).max(axis=1 - axis) / limit
    assert (scales < 0.97 * largest).any()
    for channel, scale in enumerate(scales):
        row = np.take(weight, channel, axis).astype(np.float64)
        finer = [
            ((np.clip(np.round(row / s), -limit, limit) * s - row) ** 2).sum()
            for s in largest[channel] * np.linspace(0.5, 1, 1001)
        ]
        found = ((np.clip(np.round(row / scale), -limit, limit) * scale - row) ** 2).sum()
        assert found <= 1.1 * min(finer)


@pytest.mark.parametrize("shift", [0.0, -2.0])
def test_a_symmetric_range_has_the_least_error_on_the_samples_themselves(samples, shift):
    """With and without negative samples: where there are none, half of the integers go unused."""
    moved = np.maximum(samples, 0) + np.float32(shift)

    def error(high):
        scale = high / 127
        return float(((np.clip(np.round(moved / scale), -127, 127) * scale - moved) ** 2).sum())

    low, high = choose(counted(moved, 5).mirrored(), "mse", 255)
    assert low == -high
    assert symmetric(high) == (high / 127, 0)
    assert error(high) <= 1.02 * min(error(moved.max() * share) for share in np.linspace(0.2, 1.0, 200))
    assert choose(counted(moved, 5).mirrored(), "minmax") == (-moved.max(), moved.max())
    assert symmetric(0.0) == (1.0, 0)


@given(
    hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=4, max_side=6), elements=st.integers(-127, 127)),
    st.sampled_from([0, 1]),
)
def test_no_two_neighbours_overflow_and_what_does_not_stays(integers, axis):
    """Neighbours by hand: two by two through the numbers of one output, inputs last."""
    kept = without_overflow(integers, axis, 128)
    assert (kept.dtype, kept.shape) == (integers.dtype, integers.shape)
    for output in range(integers.shape[axis]):
        before, after = (
            np.moveaxis(np.take(each, output, axis), 0, -1).ravel().astype(int).tolist() for each in (integers, kept)
        )
        for start in range(0, len(before), 2):
            old, new = before[start : start + 2], after[start : start + 2]
            if min(old) * max(old) < 0 or abs(sum(old)) <= 128 or len(old) == 1:
                assert new == old
            else:
                assert abs(sum(new)) == 128
                # The excess is shared, so that neither turns its sign.
                assert all(
                    abs(abs(o - n) - (abs(sum(old)) - 128) / 2) <= 0.5 and o * n >= 0
                    for o, n in zip(old, new, strict=True)
                )
    assert (without_overflow(kept, axis, 128) == kept).all()
    assert without_overflow(integers, axis, None) is integers


@pytest.mark.parametrize("shape", [(12, 16, 3, 3), (12, 5, 3, 3), (12, 64)])
def test_scales_that_keep_neighbours_apart_lose_less_than_seven_bits(shape):
    weight = np.random.default_rng(1).standard_normal(shape).astype(np.float32)

    def error(scales, limit, pair):
        integers = quantized_weight(weight, scales, 0, limit, pair)
        return ((integers * scales.reshape(-1, *[1] * (weight.ndim - 1)) - weight) ** 2).sum()

    seven, eight = (error(mse_scales(weight, 0, limit), limit, None) for limit in (63, 127))
    pairs = error(mse_scales(weight, 0, 127, 128), 127, 128)
    assert eight < pairs < 0.6 * seven
    by_the_largest = weight_scales(weight, 0, 127, 128)
    free = np.clip(np.round(weight / by_the_largest.reshape(-1, *[1] * (weight.ndim - 1))), -127, 127).astype(np.int8)
    # Rounding alone may make a sum one too large.
    assert np.abs(without_overflow(free, 0, 128).astype(int) - free).max() <= 1
