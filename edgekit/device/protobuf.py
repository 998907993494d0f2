"""Protocol buffers, as far as a scan needs them: fields of a message, numbers, sizes.

A message is a sequence of (field number, wire type, value); see protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from edgekit.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Value = int | memoryview


def fields(data: memoryview, where: str) -> Iterator[tuple[int, int, Value]]:
    """(field number, wire type, value) of each field of a message.

    Raises:
        BundleError: the bytes are no message; groups, which nobody writes any more, are none either.
    """
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position, where)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            refuse(f"field number {number}", where, "protocol buffers")
        if wire == VARINT:
            value, position = _varint(data, position, where)
            yield number, wire, value
            continue
        if wire == BYTES:
            length, position = _varint(data, position, where)
        elif wire in {FIXED32, FIXED64}:
            length = 4 if wire == FIXED32 else 8
        else:
            refuse(f"wire type {wire}", where, "protocol buffers without groups")
        if length > end - position:
            refuse(f"a field of {length} bytes where {end - position} are left", where, "a whole ONNX file")
        yield number, wire, data[position : position + length]
        position += length


def numbers(value: Value, where: str) -> Iterator[int]:
    """The numbers of a repeated field: one, or several packed."""
    if isinstance(value, int):
        yield value
        return
    position = 0
    while position < len(value):
        number, position = _varint(value, position, where)
        yield number


def refuse(problem: str, where: str, rule: str) -> NoReturn:
    """Say why a model is not to be used.

    Raises:
        BundleError: always.
    """
    raise BundleError(
        problem, where=where, rule=rule, way_out="export the model with edgekit, or do not trust the file"
    )


def _varint(data: memoryview, position: int, where: str) -> tuple[int, int]:
    result, shift = 0, 0
    while True:
        if position >= len(data):
            refuse("the file ends within a number", where, "a whole ONNX file")
        if shift >= 70:
            refuse("a number of more than 10 bytes", where, "protocol buffers")
        byte = data[position]
        position, result, shift = position + 1, result | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return result & 0xFFFF_FFFF_FFFF_FFFF, position
