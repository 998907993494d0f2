"""JSON from a stranger: no duplicate keys, no NaN, no depth or size without bound."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from edgekit.errors import BundleError

MAX_JSON_BYTES = 8_000_000
MAX_DEPTH = 24
MAX_VALUES = 400_000


def parse(data: bytes, where: str) -> dict[str, Any]:
    """The object in `data`.

    Raises:
        BundleError: the bytes are not UTF-8 JSON, or hold a duplicate key, a number JSON does not have, a text that is
            no Unicode, more than 24 levels or 400,000 values, or anything but an object at the top.

    >>> parse(b'{"a": [1, 2.5, null]}', "example")
    {'a': [1, 2.5, None]}
    """
    if len(data) > MAX_JSON_BYTES:
        raise BundleError(f"{len(data)} bytes", where=where, rule=f"at most {MAX_JSON_BYTES} bytes of JSON")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=lambda pairs: _object(pairs, where),
            parse_constant=lambda name: _refuse(f"got {name}", where, "numbers that JSON has"),
            parse_float=lambda text: _finite(text, where),
        )
    except RecursionError as error:
        raise BundleError("nested too deeply", where=where, rule=f"at most {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise BundleError(f"not JSON: {error}", where=where, rule="JSON in UTF-8") from error
    _walk(value, where)
    if not isinstance(value, dict):
        _refuse(f"got {type(value).__name__}", where, "expected an object")
    return value


def _object(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            _refuse(f"key {key!r} stands there twice", where, "each key once")
        result[key] = value
    return result


def _finite(text: str, where: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(f"{text} is out of range", where, "numbers that fit in 64 bits")
    return value


def _walk(value: object, where: str) -> None:
    """Bounds that the parser does not know; level by level, so that depth costs no recursion."""
    level, depth, count = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if depth > MAX_DEPTH:
            _refuse("nested too deeply", where, f"at most {MAX_DEPTH} levels")
        if count > MAX_VALUES:
            _refuse(f"more than {MAX_VALUES} values", where, f"at most {MAX_VALUES} values")
        following: list[object] = []
        for item in level:
            if isinstance(item, dict):
                following.extend(item.keys())
                following.extend(item.values())
            elif isinstance(item, list):
                following.extend(item)
            elif isinstance(item, str) and not item.isascii():
                _check_unicode(item, where)
            elif isinstance(item, int) and abs(item) >= 2**63:
                _refuse("an integer is out of range", where, "numbers that fit in 64 bits")
        level = following


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(f"{text!r} is no Unicode text", where, "surrogates come in pairs")


def _refuse(problem: str, where: str, rule: str) -> NoReturn:
    raise BundleError(problem, where=where, rule=rule)
