"""What an ONNX file holds, read without the onnx package, before ONNX Runtime sees a byte.

ONNX is protocol buffers: a message is a sequence of (field number, wire type, value). This walker follows the fields
through which graphs, nodes and tensors are reached (onnx/onnx.proto, IR version 13) and skips the rest, as parsers do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from edgekit.errors import BundleError

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets whose kernels ONNX Runtime itself has."""
REFUSED_OPERATORS = frozenset({"EPContext", "PythonOp", "PythonOpGrad", "ATen"})
"""Operators that carry compiled code or call into Python."""
MAX_DEPTH = 32
MAX_NODES = 200_000

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ORT_FORMAT = b"ORTM"

# For each message: the fields that lead to another one.
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "opset": {},
}
_DOMAIN_FIELD = {"node": 7, "opset": 1, "function": 10}
_NODE_OPERATOR, _TENSOR_EXTERNAL, _TENSOR_LOCATION, _MODEL_IR, _OPSET_VERSION = 4, 13, 14, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxScan:
    """What a scan found: operators with their counts, operator sets, the IR version."""

    ir_version: int
    opsets: dict[str, int]
    operators: dict[str, int]
    tensors: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "ir_version": self.ir_version,
            "opsets": self.opsets,
            "operators": self.operators,
            "nodes": sum(self.operators.values()),
            "tensors": self.tensors,
        }


def scan(data: bytes, where: str) -> OnnxScan:
    """Walk an ONNX model and refuse what could reach beyond it.

    Raises:
        BundleError: the bytes are no ONNX model; a tensor keeps its data in another file; an operator comes from a
            domain that is not in `DOMAINS` or carries compiled code; nesting or counts are over the limits.
    """
    if data[4:8] == _ORT_FORMAT:
        _refuse("an ORT-format model", where, "an ONNX model; ORT files are made for one machine")
    walker = _Walker(where)
    walker.walk(memoryview(data))
    if "graph" not in walker.seen or not walker.opsets:
        _refuse("no graph or no operator set", where, "an ONNX model")
    return OnnxScan(
        ir_version=walker.ir_version,
        opsets=dict(sorted(walker.opsets.items())),
        operators=dict(sorted(walker.operators.items(), key=lambda item: (-item[1], item[0]))),
        tensors=walker.tensors,
    )


class _Walker:
    """One walk over one model, with a stack instead of recursion."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.ir_version = 0
        self.opsets: dict[str, int] = {}
        self.operators: Counter[str] = Counter()
        self.tensors = 0
        self.seen: set[str] = set()

    def walk(self, data: memoryview) -> None:
        stack = [("model", data, 0)]
        while stack:
            kind, message, depth = stack.pop()
            if depth > MAX_DEPTH:
                _refuse("graphs nested too deeply", self.where, f"at most {MAX_DEPTH} levels")
            self.seen.add(kind)
            nested = _NESTED[kind]
            texts: dict[int, memoryview] = {}
            numbers: dict[int, int] = {}
            for number, wire, value in _fields(message, self.where):
                self._check_tensor_field(kind, number)
                if isinstance(value, int):
                    numbers[number] = value
                elif number in nested and wire == _BYTES:
                    stack.append((nested[number], value, depth + 1))
                elif wire == _BYTES:
                    # The last one counts. A field of another wire type than its own is unknown to a parser: it must
                    # not replace a text here that the parser keeps.
                    texts[number] = value
            self._take(kind, texts, numbers)

    def _check_tensor_field(self, kind: str, number: int) -> None:
        # Whatever they hold: a file of ours has neither, so nobody need reason about other parsers' leniency.
        if kind == "tensor" and number in {_TENSOR_EXTERNAL, _TENSOR_LOCATION}:
            _refuse("a tensor keeps its data in another file", self.where, "all weights inside the ONNX file")

    def _take(self, kind: str, texts: dict[int, memoryview], numbers: dict[int, int]) -> None:
        if kind in _DOMAIN_FIELD:
            domain = self._text(texts.get(_DOMAIN_FIELD[kind]))
            if domain not in DOMAINS:
                allowed = ", ".join(sorted(DOMAINS - {""}))
                _refuse(f"operator domain {domain!r}", self.where, f"one of {allowed}")
            if kind == "opset":
                self.opsets[domain or "ai.onnx"] = numbers.get(_OPSET_VERSION, 0)
            elif kind == "node":
                self._take_node(domain, self._text(texts.get(_NODE_OPERATOR)))
        elif kind == "tensor":
            self.tensors += 1
        elif kind == "model":
            self.ir_version = numbers.get(_MODEL_IR, 0)

    def _take_node(self, domain: str, operator: str) -> None:
        if operator in REFUSED_OPERATORS:
            _refuse(f"operator {operator}", self.where, "operators without compiled or foreign code")
        self.operators[operator if domain in {"", "ai.onnx"} else f"{domain}.{operator}"] += 1
        if self.operators.total() > MAX_NODES:
            _refuse(f"more than {MAX_NODES} nodes", self.where, f"at most {MAX_NODES} nodes")

    def _text(self, value: memoryview | None) -> str:
        # Replacement characters are in no name that is allowed, so bytes that are not UTF-8 are refused with the rest.
        return "" if value is None else bytes(value).decode("utf-8", "replace")


def _fields(data: memoryview, where: str) -> Iterator[tuple[int, int, int | memoryview]]:
    """(field number, wire type, value) of each field of a message."""
    position, end = 0, len(data)
    while position < end:
        tag, position = _varint(data, position, where)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            _refuse(f"field number {number}", where, "protocol buffers")
        if wire == _VARINT:
            value, position = _varint(data, position, where)
            yield number, wire, value
            continue
        if wire == _BYTES:
            length, position = _varint(data, position, where)
        elif wire in {_FIXED32, _FIXED64}:
            length = 4 if wire == _FIXED32 else 8
        else:
            _refuse(f"wire type {wire}", where, "protocol buffers without groups")
        if length > end - position:
            _refuse(f"a field of {length} bytes where {end - position} are left", where, "a whole ONNX file")
        yield number, wire, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int, where: str) -> tuple[int, int]:
    result, shift = 0, 0
    while True:
        if position >= len(data):
            _refuse("the file ends within a number", where, "a whole ONNX file")
        if shift >= 70:
            _refuse("a number of more than 10 bytes", where, "protocol buffers")
        byte = data[position]
        position, result, shift = position + 1, result | (byte & 0x7F) << shift, shift + 7
        if byte < 0x80:
            return result & 0xFFFF_FFFF_FFFF_FFFF, position


def _refuse(problem: str, where: str, rule: str) -> NoReturn:
    raise BundleError(
        problem, where=where, rule=rule, way_out="export the model with edgekit, or do not trust the file"
    )
