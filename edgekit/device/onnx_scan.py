"""What an ONNX file holds, read without the onnx package, before ONNX Runtime sees a byte.

ONNX is protocol buffers: a message is a sequence of (field number, wire type, value). This walker follows the fields
through which graphs, nodes and tensors are reached (onnx/onnx.proto, IR version 13) and skips the rest, as parsers do.

What a graph does when it runs is not known here: a ConstantOfShape, an Expand or a Loop of a few bytes may ask for any
amount of memory or time. `edgekit.device.trial` runs such a file inside limits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgekit.device.onnx_tensor import Sizes, Tensor
from edgekit.device.protobuf import BYTES, Value, fields, refuse

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets whose kernels ONNX Runtime itself has."""
REFUSED_OPERATORS = frozenset({"EPContext", "PythonOp", "PythonOpGrad", "ATen"})
"""Operators that carry compiled code or call into Python."""
MAX_DEPTH = 32
MAX_NODES = 200_000
MAX_TENSORS = 200_000
MAX_FIELDS = 5_000_000
"""Of all messages that are looked into: what bounds the time that a scan takes."""
MAX_SPARSE_ELEMENTS = 1 << 26
"""Of all sparse tensors together, zeros included: ONNX Runtime writes them out when it loads a model."""
SETTINGS_KEY = "ort_config"
"""Metadata under this key can set options of the session in ONNX Runtime."""

_ORT_FORMAT = b"ORTM"

# For each message: the fields that lead to another one.
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset", 14: "property", 20: "training"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "opset": {},
    "property": {},
}
_ONCE = {("attribute", 5), ("attribute", 22), ("sparse", 1), ("sparse", 2)}
"""Tensors that stand there once; a parser would merge the parts of one, and sizes that it declares multiply."""
_DOMAIN_FIELD = {"node": 7, "opset": 1}
_NODE_OPERATOR, _MODEL_IR, _OPSET_VERSION, _PROPERTY_KEY, _MODEL_FUNCTION, _SPARSE_SIZES = 4, 1, 2, 1, 25, 3


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
        BundleError: the bytes are no ONNX model; a tensor keeps its data in another file or holds less than it
            declares; an operator comes from a domain that is not in `DOMAINS` or carries compiled code; the model
            has functions or session settings of its own; nesting or counts are over the limits.
    """
    if data[4:8] == _ORT_FORMAT:
        refuse("an ORT-format model", where, "an ONNX model; ORT files are made for one machine")
    walker = _Walker(where)
    walker.walk(memoryview(data))
    if "graph" not in walker.seen or not walker.opsets:
        refuse("no graph or no operator set", where, "an ONNX model")
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
        self.nodes = 0
        self.tensors = 0
        self.fields = 0
        self.sparse_elements = 0
        self.seen: set[str] = set()

    def walk(self, data: memoryview) -> None:
        stack = [("model", data, 0)]
        while stack:
            kind, message, depth = stack.pop()
            if depth > MAX_DEPTH:
                refuse("graphs nested too deeply", self.where, f"at most {MAX_DEPTH} levels")
            self.seen.add(kind)
            if kind == "tensor":
                self._take_tensor(message)
            else:
                stack += ((below, value, depth + 1) for below, value in self._inside(kind, message))

    def _inside(self, kind: str, message: memoryview) -> list[tuple[str, memoryview]]:
        """Take a message, and return those inside of it with their kinds."""
        nested, found = _NESTED[kind], list[tuple[str, memoryview]]()
        texts: dict[int, memoryview] = {}
        numbers: dict[int, int] = {}
        sizes = Sizes(self.where)
        seen: set[tuple[str, int]] = set()
        for number, wire, value in self._fields(message):
            if kind == "sparse" and number == _SPARSE_SIZES:
                sizes.take(value)
            elif isinstance(value, int):
                numbers[number] = value
            elif wire == BYTES and number in nested:
                if (kind, number) in _ONCE & seen:
                    refuse("a tensor in two parts", self.where, "each tensor once")
                seen.add((kind, number))
                found.append((nested[number], value))
            elif wire == BYTES:
                # The last one counts. A field of another wire type than its own is unknown to a parser: it must
                # not replace a text here that the parser keeps.
                texts[number] = value
        self._take(kind, texts, numbers)
        if kind == "sparse":
            self._take_sparse(sizes)
        return found

    def _fields(self, message: memoryview) -> Iterator[tuple[int, int, Value]]:
        for each in fields(message, self.where):
            self.fields += 1
            if self.fields > MAX_FIELDS:
                refuse(f"more than {MAX_FIELDS} fields", self.where, f"at most {MAX_FIELDS} fields")
            yield each

    def _take_tensor(self, message: memoryview) -> None:
        self.tensors += 1
        if self.tensors > MAX_TENSORS:
            refuse(f"more than {MAX_TENSORS} tensors", self.where, f"at most {MAX_TENSORS} tensors")
        tensor = Tensor(self.where)
        for number, wire, value in self._fields(message):
            tensor.take(number, wire, value)
        tensor.check()

    def _take_sparse(self, sizes: Sizes) -> None:
        self.sparse_elements += sizes.elements
        if self.sparse_elements > MAX_SPARSE_ELEMENTS:
            refuse("sparse tensors without end", self.where, f"at most {MAX_SPARSE_ELEMENTS} elements in all")

    def _take(self, kind: str, texts: dict[int, memoryview], numbers: dict[int, int]) -> None:
        if kind in _DOMAIN_FIELD:
            domain = self._text(texts.get(_DOMAIN_FIELD[kind]))
            if domain not in DOMAINS:
                allowed = ", ".join(sorted(DOMAINS - {""}))
                refuse(f"operator domain {domain!r}", self.where, f"one of {allowed}")
            if kind == "opset":
                self.opsets[domain or "ai.onnx"] = numbers.get(_OPSET_VERSION, 0)
            elif kind == "node":
                self._take_node(domain, self._text(texts.get(_NODE_OPERATOR)))
        elif kind == "model":
            self.ir_version = numbers.get(_MODEL_IR, 0)
            if _MODEL_FUNCTION in texts:
                refuse("functions of its own", self.where, "operators written out: functions can call each other")
        elif kind == "property" and self._text(texts.get(_PROPERTY_KEY)) == SETTINGS_KEY:
            refuse("session settings in the metadata", self.where, "settings are the application's")

    def _take_node(self, domain: str, operator: str) -> None:
        if operator in REFUSED_OPERATORS:
            refuse(f"operator {operator}", self.where, "operators without compiled or foreign code")
        self.operators[operator if domain in {"", "ai.onnx"} else f"{domain}.{operator}"] += 1
        self.nodes += 1
        if self.nodes > MAX_NODES:
            refuse(f"more than {MAX_NODES} nodes", self.where, f"at most {MAX_NODES} nodes")

    def _text(self, value: memoryview | None) -> str:
        # Replacement characters are in no name that is allowed, so bytes that are not UTF-8 are refused with the rest.
        return "" if value is None else bytes(value).decode("utf-8", "replace")
