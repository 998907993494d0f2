import numpy as np
import pytest
import scipy.stats

from edgekit import stats, tasks
from edgekit.explain.drift import BY_FILL, BY_SHIFT, drift, spearman
from edgekit.explain.samples import draw

SHAPE = (1, 12, 12)
RNG = np.random.default_rng(1)


def smooth_weight():
    """Two classes that a Gaussian in the middle tells apart."""
    y, x = np.mgrid[0:12, 0:12]
    blob = np.exp(-((y - 5.5) ** 2 + (x - 5.5) ** 2) / 12).reshape(-1)
    return np.stack([blob, -blob], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 6, (2, 5, 7)).astype(float)
    assert spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic)


def test_constant_maps_share_no_order_unless_they_are_equal():
    assert spearman(np.zeros(4), np.zeros(4)) == 1
    assert spearman(np.zeros(4), np.arange(4.0)) == 0


def test_a_file_does_not_drift_from_itself(tmp_path, linear, io, labelled):
    weight = smooth_weight()
    path = linear(tmp_path / "m.onnx", weight, SHAPE)
    spec = io(SHAPE, 2)
    samples = draw(labelled(weight, SHAPE), spec, 10)
    found = drift({"m": path, "same": path}, samples, tasks.classification(), spec=spec, window=4, stride=2)
    row = found.file("same")
    assert (row.correlation.value, row.correlation.low, row.both_right) == (1.0, 1.0, 10)
    assert found.yardstick_by == BY_SHIFT
    assert 0.3 < found.yardstick.value < 1


def test_a_shortcut_through_a_corner_pixel_is_seen(tmp_path, linear, io, labelled):
    """Both files answer alike, one by the middle of the image, the other by a corner that gives the class away."""
    honest, cheat = smooth_weight(), np.zeros((144, 2))
    cheat[0] = 1, -1
    data = labelled(honest, SHAPE, n=24)
    x, labels = data.tensors
    x[:, 0, 0, 0] = 1 - 2 * labels.float()
    spec = io(SHAPE, 2)
    files = {"honest": linear(tmp_path / "a.onnx", honest, SHAPE), "cheat": linear(tmp_path / "b.onnx", cheat, SHAPE)}
    found = drift(files, draw(data, spec, 24), tasks.classification(), spec=spec, window=4, stride=2)
    row = found.file("cheat")
    assert row.both_right >= 20
    assert row.correlation.high < 0.4 < found.yardstick.low
    assert row.largest[0]["correlation"] == min(each.correlations["cheat"] for each in found.samples)


def test_only_samples_that_both_get_right_count(tmp_path, linear, io, labelled):
    weight = RNG.standard_normal((144, 3))
    other = weight + 1.5 * RNG.standard_normal((144, 3))
    data = labelled(weight, SHAPE, n=30)
    data.tensors[1][:5] = (data.tensors[1][:5] + 1) % 3  # where the original is wrong
    spec = io(SHAPE, 3)
    files = {"a": linear(tmp_path / "a.onnx", weight, SHAPE), "b": linear(tmp_path / "b.onnx", other, SHAPE)}
    found = drift(files, draw(data, spec, 30), tasks.classification(), spec=spec, window=6, stride=6)
    x = data.tensors[0].reshape(30, -1).numpy()
    alike = ((x @ weight).argmax(1) == (x @ other).argmax(1))[5:]
    assert (found.asked, found.original_right) == (30, 25)
    assert 0 < found.file("b").both_right == alike.sum() < 25
    assert sorted(each.sample.index for each in found.samples) == list(range(5, 30))
    kept = [each.correlations["b"] for each in found.samples if alike[each.sample.index - 5]]
    assert found.file("b").correlation == stats.mean(np.array(kept))


def test_where_windows_move_by_one_the_yardstick_has_another_fill(tmp_path, linear, io, labelled):
    weight = RNG.standard_normal((6, 2))
    spec = io((6,), 2)
    path = linear(tmp_path / "m.onnx", weight, (6,))
    found = drift({"m": path, "same": path}, draw(labelled(weight, (6,)), spec, 12), tasks.classification(), spec=spec)
    assert (found.grid.kind, found.yardstick_by) == ("features", BY_FILL)
    assert found.yardstick.value < 1


def test_without_right_and_wrong_all_samples_count(tmp_path, linear, io, labelled):
    weight = RNG.standard_normal((6, 1))
    spec = io((6,), 1)
    path = linear(tmp_path / "m.onnx", weight, (6,))
    data = labelled(weight, (6,))
    found = drift({"m": path, "same": path}, draw(data, spec, 12), tasks.regression(), spec=spec)
    assert found.file("same").both_right == 12
    assert "nothing says what is right" in found.notes[0]


def test_time_ends_it_but_not_before_eight_samples(tmp_path, linear, io, labelled):
    weight = smooth_weight()
    path, spec = linear(tmp_path / "m.onnx", weight, SHAPE), io(SHAPE, 2)
    ticks = iter(range(0, 10_000, 100))
    found = drift(
        {"m": path, "same": path},
        draw(labelled(weight, SHAPE), spec, 12),
        tasks.classification(),
        spec=spec,
        time_s=1.0,
        clock=lambda: next(ticks),
    )
    assert len(found.samples) == 8
    assert found.notes == ["time was up after 8 of 12 samples"]


def test_samples_are_spread_over_the_data_in_an_order_of_their_own(io, labelled):
    data = labelled(RNG.standard_normal((6, 2)), (6,), n=40)
    indexes = [sample.index for sample in draw(data, io((6,), 2), 10, seed=1)]
    assert sorted(indexes) == list(range(0, 40, 4)) != indexes
    assert indexes == [sample.index for sample in draw(data, io((6,), 2), 10, seed=1)]
