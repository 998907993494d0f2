import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import EdgekitError
from edgekit.spec import IOSpec, TensorSpec

X = TensorSpec(name="x", dtype="float32", shape=("batch", 3, 8, 8))
IO = IOSpec(inputs=(X,), outputs=(TensorSpec(name="y", dtype="int64", shape=("batch",)),))


def test_round_trip_through_json():
    assert IOSpec.from_dict(json.loads(json.dumps(IO.to_dict()))) == IO


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (np.zeros((1, 3, 8, 8), np.float32), True),
        (np.zeros((7, 3, 8, 8), np.float32), True),
        (np.zeros((1, 3, 8, 9), np.float32), False),
        (np.zeros((3, 8, 8), np.float32), False),
        (np.zeros((1, 3, 8, 8), np.float64), False),
    ],
)
def test_what_a_spec_accepts(value, accepted):
    assert X.accepts(value) is accepted
    if not accepted:
        with pytest.raises(EdgekitError, match=str(list(value.shape)).replace("[", r"\[")) as caught:
            X.check(value)
        assert "expected float32 [batch, 3, 8, 8]" in str(caught.value)
        assert "tensor 'x'" in str(caught.value)


def test_feeds_must_be_exactly_the_inputs():
    with pytest.raises(EdgekitError, match=r"got inputs \['z'\]"):
        IO.check_feeds({"z": np.zeros((1, 3, 8, 8), np.float32)})


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda d: d.pop("outputs"), "io.outputs"),
        (lambda d: d["inputs"][0].update(dtype="float33"), "io.inputs[0].dtype"),
        (lambda d: d["inputs"][0].update(shape=[1, -2]), "io.inputs[0].shape[1]"),
        (lambda d: d["inputs"][0].update(shape=[True]), "io.inputs[0].shape[0]"),
        (lambda d: d["inputs"][0].pop("name"), "io.inputs[0].name"),
    ],
)
def test_the_path_to_a_fault_is_named(change, where):
    data = IO.to_dict()
    change(data)
    with pytest.raises(EdgekitError) as caught:
        IOSpec.from_dict(data)
    assert caught.value.where == where


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(
    st.dictionaries(
        st.sampled_from(["inputs", "outputs"]),
        st.lists(st.dictionaries(st.sampled_from(["name", "dtype", "shape"]), JSON)) | JSON,
    )
)
def test_no_input_makes_anything_but_our_error(data):
    with contextlib.suppress(EdgekitError):
        IOSpec.from_dict(data)
