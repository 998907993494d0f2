"""What a tensor of an ONNX file declares, against what it holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from edgekit.device.protobuf import BYTES, Value, numbers, refuse

MAX_RANK = 64

_DIMS, _DATA_TYPE, _STRINGS, _RAW, _EXTERNAL, _LOCATION = 1, 2, 6, 9, 13, 14
_TYPED = {4, 5, 7, 10, 11}
"""Numbers that are not raw: in float, int32, int64, double and uint64."""
_MOST_IN_A_BYTE = 4
"""Elements that a byte of these can hold: 2-bit ones, packed."""
_BITS = dict(enumerate([0, 32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2]))
"""Bits of an element by `TensorProto.DataType`; texts (8) are never raw."""


@dataclass(slots=True)
class Sizes:
    """Sizes as they come in, one by one or packed."""

    where: str
    values: list[int] = field(default_factory=list)

    def take(self, value: Value) -> None:
        """Another field of them.

        Raises:
            BundleError: one is below 0, or there are too many.
        """
        for size in numbers(value, self.where):
            self.values.append(size)
            if size >= 1 << 63 or len(self.values) > MAX_RANK:
                refuse("sizes below 0 or without end", self.where, f"at most {MAX_RANK} sizes from 0 up")

    @property
    def elements(self) -> int:
        """Their product."""
        return math.prod(self.values)


class Tensor:
    """A tensor, field by field."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.sizes = Sizes(where)
        self.data_type = self.raw = self.typed = self.texts = 0

    def take(self, number: int, wire: int, value: Value) -> None:
        """Take a field.

        Raises:
            BundleError: it says that the data lie elsewhere.
        """
        if number in {_EXTERNAL, _LOCATION}:
            # Whatever they hold: a file of ours has neither, so nobody need reason about other parsers' leniency.
            refuse("a tensor keeps its data in another file", self.where, "all weights inside the ONNX file")
        length = 1 if isinstance(value, int) else len(value)
        if number == _DIMS:
            self.sizes.take(value)
        elif number == _DATA_TYPE and isinstance(value, int):
            self.data_type = value
        elif number == _RAW and wire == BYTES:
            self.raw = length
        elif number in _TYPED:
            self.typed += length
        elif number == _STRINGS:
            self.texts += 1

    def check(self) -> None:
        """Refuse a tensor that declares more than it holds: memory would be had for the asking.

        Raises:
            BundleError: it does.
        """
        elements, shown = self.sizes.elements, self.sizes.values[:8]
        if self.raw and self.raw != -(-elements * _BITS.get(self.data_type, 0) // 8):
            refuse(f"a tensor of sizes {shown} in {self.raw} bytes", self.where, "as many bytes as sizes and type say")
        if not self.raw and elements > max(_MOST_IN_A_BYTE * self.typed, self.texts):
            refuse(f"a tensor of sizes {shown} that holds less", self.where, "tensors that hold what they declare")
