"""Manifests that were valid once: whatever becomes of them, they are read or refused as a bundle's fault."""

from __future__ import annotations

import copy
import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.device import strict_json
from edgekit.device.manifest import Manifest
from edgekit.errors import BundleError

KEYS = st.sampled_from(
    ["kind", "size", "name", "shape", "dtype", "file", "sha256", "tolerance", "x", "", "\0", "__class__"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["softmax", "cpu", "1.9", "2.0", "../x", "edgekit/bundle.json", "a" * 300, "\ud800", 10**400])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "drop", "double", "swap", "rename"]), st.randoms(), VALUES),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def valid():
    """What `write_bundle` writes today, so that the test keeps up with the format."""
    import importlib.util
    import sys
    from pathlib import Path

    script = Path(__file__).parents[2] / "tools/device_apps/vectors/attacks.py"
    spec = importlib.util.spec_from_file_location("attacks_for_manifests", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules["attacks_for_manifests"] = module
    spec.loader.exec_module(module)
    return json.loads(module.whole()[module.MANIFEST])


def places(value, path=()):
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*path, key)
            yield from places(value[key], (*path, key))


def at(value, way):
    for key in way:
        value = value[key]
    return value


def mutated(about, steps):
    for step, random, value in steps:
        every = list(places(about))
        if not every:
            return about
        *way, last = random.choice(every)
        change(step, at(about, way), last, value, copy.deepcopy(at(about, random.choice(every))))
    return about


def change(step, target, last, value, other):
    if step == "put":
        target[last] = copy.deepcopy(value)
    elif step == "drop":
        del target[last]
    elif step == "double" and isinstance(target, list):
        target.append(copy.deepcopy(target[last]))
    elif step == "rename" and isinstance(target, dict):
        target[str(value)[:50]] = target.pop(last)
    elif step == "swap":
        target[last] = other


def outcome(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is newer than")
        try:
            return read()
        except BundleError:
            return None


@settings(max_examples=400)
@given(STEPS)
def test_a_mutated_manifest_is_read_or_refused(valid, steps):
    about = mutated(copy.deepcopy(valid), steps)
    found = outcome(lambda: Manifest.from_dict(about))
    if found is not None:
        assert Manifest.from_dict({**found.to_dict()}) == found  # what is read can be written and read again


@settings(max_examples=200)
@given(STEPS)
def test_a_mutated_file_is_read_or_refused(valid, steps):
    about = mutated(copy.deepcopy(valid), steps)
    data = json.dumps(about, ensure_ascii=True, default=str).encode()  # NaN and Infinity are written as Python does
    found = outcome(lambda: Manifest.from_dict(strict_json.parse(data, "m")))
    assert found is None or isinstance(found, Manifest)


def test_the_valid_one_is_valid(valid):
    assert Manifest.from_dict(copy.deepcopy(valid)).to_dict() == valid


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(valid, data):
    raw = bytearray(json.dumps(valid).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not raw:
            break
    found = outcome(lambda: Manifest.from_dict(strict_json.parse(bytes(raw), "m")))
    assert found is None or isinstance(found, Manifest)
