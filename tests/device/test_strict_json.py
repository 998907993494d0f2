from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.device.strict_json import MAX_JSON_BYTES, parse
from edgekit.errors import BundleError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_reads_what_json_writes(value):
    assert parse(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"), "x") == value


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"a": 1, "a": 1}', "key 'a' stands there twice"),
        (b'{"a": {"b": 1, "b": 2}}', "key 'b' stands there twice"),
        (b'{"a": NaN}', "got NaN"),
        (b'{"a": -Infinity}', "got -Infinity"),
        (b'{"a": 1e999}', "1e999 is out of range"),
        (b'{"a": 99999999999999999999}', "an integer is out of range"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": "\\ud800"}', "is no Unicode text"),
        (b'{"\\udc00": 1}', "is no Unicode text"),
        (b"[" * 30 + b"]" * 30, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a": "' + b"\xff" + b'"}', "not JSON"),
        (b"[1]", "got list"),
        (b"", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"[" + b"1," * 400_000 + b"1]", "more than 400000 values"),
        (b" " * (MAX_JSON_BYTES + 1), "bytes"),
    ],
)
def test_refuses(data, text):
    with pytest.raises(BundleError) as caught:
        parse(data, "some.json")
    assert text in str(caught.value)
    assert caught.value.where == "some.json"


@given(st.binary(max_size=60))
def test_any_bytes_give_an_object_or_a_bundle_error(data):
    with suppress(BundleError):
        assert isinstance(parse(data, "x"), dict)
