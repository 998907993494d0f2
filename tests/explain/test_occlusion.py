import numpy as np
import pytest
from onnx import TensorProto

from edgekit.errors import DataError
from edgekit.explain.grid import Grid, channel_axis, grid_for
from edgekit.explain.occlusion import mean_fill, occluded, occlusion_map, runner

RNG = np.random.default_rng(0)


def covered_sum(values, grid):
    """Sum of `values` over each window, by brute force over the grid's definition."""
    (height, width), (down, right) = grid.window, grid.stride
    rows, columns = grid.sizes
    tops = sorted({*range(0, rows - height + 1, down), rows - height})
    lefts = sorted({*range(0, columns - width + 1, right), columns - width})
    return np.array([[values[top : top + height, left : left + width].sum() for left in lefts] for top in tops])


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_of_a_linear_model_it_is_weight_times_what_was_covered(tmp_path, linear, io, value, centred):
    weight = RNG.standard_normal((2 * 7 * 9, 3))
    run = runner(linear(tmp_path / "m.onnx", weight, (2, 7, 9)), io((2, 7, 9), 3))
    x = RNG.standard_normal((1, 2, 7, 9)).astype(np.float32)
    grid = grid_for("image", x.shape, window=3, stride=2)
    found = occlusion_map(run, {"x": x}, "x", grid, fill=np.asarray(value), target=1, centred=centred)
    by_hand = weight - weight.mean(axis=1, keepdims=True) if centred else weight
    effect = (by_hand[:, 1].reshape(2, 7, 9) * (x[0] - value)).sum(axis=0)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found, covered_sum(effect, grid), atol=1e-4)


def test_tokens_go_one_by_one(tmp_path, linear, io):
    weight = RNG.standard_normal((6, 2))
    run = runner(linear(tmp_path / "m.onnx", weight, (6,), TensorProto.INT64), io((6,), 2, "int64"))
    x = RNG.integers(1, 9, (1, 6))
    grid = grid_for("tokens", x.shape)
    found = occlusion_map(run, {"x": x}, "x", grid, fill=np.asarray(4), target=0, centred=False)
    np.testing.assert_allclose(found, weight[:, 0] * (x[0] - 4), atol=1e-4)


def test_more_windows_than_go_into_one_run_and_a_fixed_batch(tmp_path, linear, io):
    weight = RNG.standard_normal((300, 2))
    x = RNG.standard_normal((1, 300)).astype(np.float32)
    path = linear(tmp_path / "m.onnx", weight, (300,))
    open_batch = io((300,), 2)
    fixed = type(open_batch)(
        inputs=(type(open_batch.inputs[0])(name="x", dtype="float32", shape=(7, 300)),), outputs=open_batch.outputs
    )
    for spec in (open_batch, fixed):
        grid = grid_for("features", x.shape)
        found = occlusion_map(runner(path, spec), {"x": x}, "x", grid, fill=np.zeros(()), target=1, centred=False)
        np.testing.assert_allclose(found, weight[:, 1] * x[0], atol=1e-3)


def test_the_other_inputs_stay_as_they_are():
    seen = {}

    def run(feeds):
        seen.update(feeds)
        return feeds["x"]

    feeds = {"x": np.ones((1, 3), np.float32), "mask": np.array([[1, 0, 1]])}
    occlusion_map(run, feeds, "x", grid_for("features", (1, 3)), fill=np.zeros(()), target=0, centred=False)
    assert seen["mask"].tolist() == [[1, 0, 1]] * 3


def test_what_is_covered_and_only_that_is_filled():
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    grid = Grid(kind="image", axes=(2, 3), sizes=(3, 4), window=(2, 2), stride=(1, 2))
    covered = occluded(x, grid, np.array([[[[-1.0]]]]))
    assert covered.shape == (4, 1, 3, 4)
    assert covered[3, 0].tolist() == [[0, 1, 2, 3], [4, 5, -1, -1], [8, 9, -1, -1]]
    assert x.min() == 0


def test_means_are_of_each_channel_or_feature():
    samples = [RNG.standard_normal((1, 3, 5, 4)).astype(np.float32) for _ in range(4)]
    fill = mean_fill(samples, "image")
    np.testing.assert_allclose(fill[0, :, 0, 0], np.concatenate(samples).mean(axis=(0, 2, 3)), atol=1e-6)
    lengths = [np.full((1, 2 * n, 3), n, np.float32) for n in (4, 8)]
    np.testing.assert_allclose(mean_fill(lengths, "steps")[0, 0], (8 * 4 + 16 * 8) / 24)
    assert mean_fill([np.array([[3, 4]])], "tokens") == 0


def test_a_shifted_grid_covers_everything_half_a_stride_further():
    grid = grid_for("image", (1, 1, 12, 12), window=4, stride=4)
    shifted = grid.shifted()
    assert [window[0].start for window in shifted.windows()[::4]] == [0, 2, 6, 10]
    ones = shifted.spread(np.array([2 * 2, 2 * 4, 2 * 4, 2 * 2] + [4 * 2, 16, 16, 8] * 2 + [4, 8, 8, 4]))
    np.testing.assert_allclose(ones, 1)
    np.testing.assert_allclose(grid.gathered(ones), 16)
    assert grid_for("features", (1, 5)).shifted() is None


def test_where_the_channels_are():
    assert channel_axis("image", (1, 3, 32, 32)) == 1
    assert channel_axis("image", (1, 32, 32, 3)) == 3
    assert channel_axis("steps", (1, 100, 16)) == 2
    assert grid_for("steps", (1, 16, 100)).axes == (2,)


def test_a_window_that_does_not_fit_is_said_to_be_so():
    with pytest.raises(DataError, match="a window of 9, moved by 5, over 8"):
        grid_for("image", (1, 1, 8, 8), window=9)
