import numpy as np
import pytest

from edgekit.data import Arrays, feeds_in_batches
from edgekit.errors import DataError
from edgekit.spec import IOSpec, TensorSpec


def spec(*inputs):
    return IOSpec(inputs=tuple(TensorSpec(name=n, dtype=d, shape=s) for n, d, s in inputs), outputs=())


X = spec(("x", "float32", ("batch", 2)))


def test_batches_are_stacked_and_cast():
    rows = np.arange(10.0).reshape(5, 2)
    found = list(feeds_in_batches(Arrays({"rows": rows, "y": np.arange(5)}, "x"), X, batch=2))
    assert [list(feeds) for feeds in found] == [["x"]] * 3
    assert found[0]["x"].dtype == np.float32
    assert np.array_equal(np.concatenate([feeds["x"] for feeds in found]), rows)


def test_a_limit_draws_from_all_the_data():
    rows = np.stack([np.arange(100.0)] * 2, axis=1)
    first, again, other = (
        np.concatenate([f["x"][:, 0] for f in feeds_in_batches(rows, X, limit=10, seed=seed)]) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert len(set(first)) == 10
    assert set(first) != set(other)


def test_a_fixed_batch_is_kept():
    fixed = spec(("x", "float32", (4, 2)))
    assert [f["x"].shape for f in feeds_in_batches(np.zeros((11, 2)), fixed)] == [(4, 2), (4, 2)]
    with pytest.raises(DataError, match="3 samples"):
        list(feeds_in_batches(np.zeros((3, 2)), fixed))


def test_several_inputs_go_by_name():
    two = spec(("ids", "int64", ("b", 3)), ("mask", "int64", ("b", 3)))
    data = Arrays({"mask": np.ones((2, 3), int), "ids": np.zeros((2, 3), int)}, "x")
    (feeds,) = feeds_in_batches(data, two)
    assert (feeds["ids"].sum(), feeds["mask"].sum()) == (0, 6)
    with pytest.raises(DataError, match="has mask, other"):
        list(feeds_in_batches(Arrays({"mask": np.ones((2, 3)), "other": np.zeros((2, 3))}, "x"), two))
    with pytest.raises(DataError, match="has one input"):
        list(feeds_in_batches(np.zeros((2, 3)), two))


def test_what_does_not_fit_the_file():
    with pytest.raises(DataError, match=r"got float32 \[2, 3\]"):
        list(feeds_in_batches(np.zeros((2, 3)), X))
    with pytest.raises(DataError, match="0 samples"):
        list(feeds_in_batches(np.zeros((0, 2)), X))
