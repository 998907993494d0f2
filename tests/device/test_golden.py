from __future__ import annotations

import io
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.device.golden import Golden, read_golden, write_golden
from edgekit.errors import BundleError
from edgekit.spec import IOSpec, TensorSpec

SPEC = IOSpec(
    inputs=(
        TensorSpec(name="/a/../b:0", dtype="float32", shape=("n", 2)),
        TensorSpec(name="length", dtype="int64", shape=()),
    ),
    outputs=(TensorSpec(name="y", dtype="float16", shape=("n", "m")),),
)


def sample(seed=0):
    random = np.random.default_rng(seed)
    return Golden(
        inputs={"/a/../b:0": random.random((3, 2), np.float32), "length": np.array(7)},
        outputs={"y": random.random((3, 0)).astype(np.float16)},
        raw=random.integers(0, 256, (4, 5, 3), dtype=np.uint8),
    )


def test_round_trip_and_numpy_reads_it_too():
    samples = (sample(0), sample(1))
    data = write_golden(samples)
    assert write_golden(samples) == data
    for one, back in zip(samples, read_golden(data, SPEC, 2), strict=True):
        for name, value in {**one.inputs, **one.outputs}.items():
            again = {**back.inputs, **back.outputs}[name]
            assert again.dtype == value.dtype
            assert np.array_equal(again, value)
        assert np.array_equal(one.raw, back.raw)
    with np.load(io.BytesIO(data)) as arrays:
        assert np.array_equal(arrays["1/raw/image"], samples[1].raw)


def npz(entries, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **{"version": (1, 0), **options})
    return buffer.getvalue()


def header(text):
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


ONE = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"no zip", "not an .npz"),
        (npz([("a.npy", npy(ONE))], zipfile.ZIP_DEFLATED), "entry 'a.npy'"),
        (npz([("a.npy", bytes(10**6))], zipfile.ZIP_DEFLATED), "entries larger than the file"),
        (npz([("a.txt", b"")]), "entry 'a.txt'"),
        (npz([("a.npy", b"junk")]), "not an .npy"),
        (npz([("a.npy", npy(ONE, version=(2, 0)))]), "another .npy version"),
        (npz([("a.npy", npy(np.array([{}], object)))]), "an array of object"),
        (npz([("a.npy", npy(ONE.astype(">f4")))]), "an array of >f4"),
        (npz([("a.npy", npy(np.asfortranarray(np.ones((2, 3)))))]), "an array of float64"),
        (npz([("a.npy", npy(ONE)[:-1])]), "11 bytes for float32 [3]"),
        (npz([("a.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (10**9,)}"))]), "not an .npy"),
        (
            npz([("a.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999,)}"))]),
            "0 bytes for float32",
        ),
        (npz([("a.npy", header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}") + bytes(4))]), "float32"),
        (npz([("a.npy", npy(ONE))]), "got nothing for input '/a/../b:0' of sample 0"),
        (npz([("0/input//a/../b:0.npy", npy(ONE))]), "got float32 [3] for input '/a/../b:0' of sample 0"),
    ],
)
def test_refuses(data, text):
    with pytest.raises(BundleError) as caught:
        read_golden(data, SPEC, 1)
    assert text in str(caught.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_refuses_a_name_that_comes_twice():
    with pytest.raises(BundleError, match="each name once"):
        read_golden(npz([("a.npy", npy(ONE)), ("a.npy", npy(ONE))]), SPEC, 1)


def test_refuses_arrays_that_nobody_expects():
    with pytest.raises(BundleError, match="unexpected array"):
        read_golden(write_golden([sample(), sample()]), SPEC, 1)


WHOLE = write_golden([sample()])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255), st.integers(0, len(WHOLE)))
def test_damage_gives_the_vectors_or_a_bundle_error(position, change, end):
    data = bytearray(WHOLE)
    data[position] ^= change
    for damaged in (bytes(data), WHOLE[:end]):
        with suppress(BundleError):
            read_golden(damaged, SPEC, 1)
