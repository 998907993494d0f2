"""Small graphs out of a large one: the groups' nodes under plain names, with cheap numbers in place of the weights.

Two graphs that differ in names and weights alone come out as the same bytes, and have the same key.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.device.request import Timed
from edgekit.profiling.network import DEQUANTIZE, QUANTIZE, Network

CALL = "call"
"""The key of the graph that does nothing."""
KEPT = 1024
"""Integer and truth constants up to so many numbers are kept: sizes, axes, indexes, paddings."""
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization"})
"""Whose single numbers are weights like any others; those of other operators may decide what they do."""
PERIOD = 251
"""Weights repeat after so many numbers, so that a request is small."""
SCALE = 0.05
CUT_SCALE = 0.5 / 255
"""Of values whose zero point is the lowest integer: so small that a ReLU, or a cut at 1 or 6, is done by rounding."""
NARROWER = 0.01
"""By so much each further scale of a graph differs from the one before: what has one scale has one, and no more."""


def cut(network: Network, parts: Sequence[Sequence[int]], edges: Collection[tuple[int, int]]) -> Timed:
    """The graph of some groups of nodes; its key depends on operators, attributes, sizes and types, not on weights.

    Args:
        network: the nodes' graph.
        parts: groups of nodes, each in order, none before one that it reads.
        edges: pairs of positions in `parts`: the second reads the first. Values between other groups are cut: one side
            becomes an output, the other an input of the graph, and each group has inputs of its own.
    """
    return _Cutter(network).cut(parts, edges)


def nothing() -> Timed:
    """A graph that does next to nothing: what a call costs."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x0", "y0")]
    graph = helper.make_graph([helper.make_node("Identity", ["x0"], ["y0"])], "piece", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return Timed(key=CALL, graph=model.SerializeToString(deterministic=True), inputs=(("float32", (1,)),))


class _Cutter:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.sizes: list[tuple[str, tuple[int, ...]]] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[TensorProto] = []
        self.described: list[object] = []
        self.dimensions: dict[str, str] = {}
        self.scales: dict[tuple[bytes, bytes], float] = {}
        self.first: dict[str, float] = {}
        self.scale_of: dict[str, float] = {}

    def cut(self, parts: Sequence[Sequence[int]], edges: Collection[tuple[int, int]]) -> Timed:
        made: list[dict[str, str]] = []
        for position, part in enumerate(parts):
            makers = [made[maker] for maker, reader in sorted(edges) if reader == position]
            names = {name: new for maker in makers for name, new in maker.items()}
            self.described.append(len(part))
            for index in part:
                self._node(self.network.nodes[index], names)
            inside = set(part).union(*(parts[reader] for maker, reader in edges if maker == position))
            own = [name for index in part for name in self.network.nodes[index].output if name]
            self._export([name for name in own if self._leaves(name, inside, alone=len(inside) == len(part))], names)
            made.append({name: names[name] for name in own})
        used = sorted({node.domain for node in self.nodes})
        opsets = {domain: self.network.opsets.get(domain, 1) for domain in used}
        ends = [[*map(_described, self.inputs)], self.sizes, [*map(_described, self.outputs)]]
        key = hashlib.sha256(json.dumps([opsets, self.described, ends]).encode()).hexdigest()[:32]
        graph = helper.make_graph(self.nodes, "piece", self.inputs, self.outputs, self.initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*entry) for entry in opsets.items()],
            ir_version=self.network.ir_version,
        )
        return Timed(key=key, graph=model.SerializeToString(deterministic=True), inputs=tuple(self.sizes))

    def _leaves(self, name: str, inside: Collection[int], *, alone: bool) -> bool:
        """Whether a value is read by nodes that are not there; one that nobody reads goes out where no reader is."""
        readers = self.network.readers.get(name, [])
        if name in self.network.outputs and (alone or not readers):
            return True
        return any(reader not in inside for reader in readers)

    def _node(self, node: onnx.NodeProto, names: dict[str, str], bias: np.float32 | None = None) -> None:
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name = f"n{len(self.nodes)}"
        described: list[object] = [node.domain, node.op_type]
        for position, name in enumerate(node.input):
            if name and name not in names:
                if name in self.network.derived:
                    # ONNX Runtime takes a bias whose scale is the product of the other two, and no other.
                    bias = self._product(node) if position == 2 else None
                    for each in self.network.derived[name]:
                        self._node(each, names, bias)
                    twin.name = f"n{len(self.nodes)}"
                elif name in self.network.constants:
                    names[name] = self._constant(node, position, name, bias)
                else:
                    names[name] = self._input(name)
            twin.input[position] = names[name] if name else ""
        if node.op_type == DEQUANTIZE:
            self.scale_of[node.output[0]] = self.first.get(twin.input[1], 1.0)
        for position, name in enumerate(node.output):
            if name:
                names[name] = twin.output[position] = f"{twin.name}_{position}"
        attributes = sorted(node.attribute, key=lambda each: each.name)
        del twin.attribute[:]
        twin.attribute.extend(attributes)
        twin.doc_string = ""
        del twin.metadata_props[:]
        described += [list(twin.input), list(twin.output)]
        described += [[each.name, each.SerializeToString(deterministic=True).hex()] for each in attributes]
        self.described.append(described)
        self.nodes.append(twin)

    def _product(self, node: onnx.NodeProto) -> np.float32:
        """Of the scales of what a node reads, as ONNX Runtime computes it."""
        first, second = (np.float32(self.scale_of.get(name, 1.0)) for name in node.input[:2])
        return first * second

    def _export(self, values: Sequence[str], names: dict[str, str]) -> None:
        for name in values:
            self.outputs.append(helper.make_tensor_value_info(names[name], self.network.kinds[name][0], None))

    def _input(self, name: str) -> str:
        new = f"x{len(self.inputs)}"
        kind, shape = self.network.kinds[name]
        known = self.network.declared.get(name, (None,) * len(shape))
        plain = [
            self.dimensions.setdefault(size, f"d{len(self.dimensions)}") if isinstance(size, str) else size
            for size in known
        ]
        self.inputs.append(helper.make_tensor_value_info(new, kind, plain))
        self.sizes.append((helper.tensor_dtype_to_np_dtype(kind).name, shape))
        return new

    def _constant(self, node: onnx.NodeProto, position: int, name: str, bias: np.float32 | None) -> str:
        tensor = self.network.constants[name]
        new = f"c{len(self.initializers)}"
        array, told = self._numbers(node, position, self.network.array(name))
        if bias is not None and node.op_type == DEQUANTIZE and position == 1:
            array, told = np.full(array.shape, bias, array.dtype), None
        self.first[new] = float(array.flat[0]) if array.size else 0.0
        self.initializers.append(numpy_helper.from_array(array, new))
        self.described.append([new, tensor.data_type, list(tensor.dims), told])
        return new

    def _numbers(self, node: onnx.NodeProto, position: int, array: np.ndarray) -> tuple[np.ndarray, object]:
        """Numbers in place of a constant's, and what of them belongs into the key."""
        if node.op_type in (QUANTIZE, DEQUANTIZE) and position in (1, 2):
            return self._scale(node, position, array)
        if array.dtype.kind in "iub" and (array.itemsize > 1 or array.dtype.kind == "b") and array.size <= KEPT:
            if array.dtype == np.int32 and node.op_type == DEQUANTIZE:  # A bias.
                return np.zeros_like(array), None
            return array, _digest(array)
        if (array.size <= 1 and node.op_type not in WEIGHTED) or node.op_type in ("Resize", "Upsample"):
            return array, _digest(array)
        return _filled(array.dtype, array.shape), None

    def _scale(self, node: onnx.NodeProto, position: int, array: np.ndarray) -> tuple[np.ndarray, object]:
        zero = node.input[2] if len(node.input) > 2 else ""
        zeros = self.network.array(zero) if zero in self.network.constants else np.zeros(1, np.uint8)
        if array.size > 1 or zeros.dtype == np.int32:
            return (np.full(array.shape, SCALE / 8, array.dtype), None) if position == 1 else (array, _digest(array))
        lowest = bool(zeros.dtype.kind in "iu" and zeros.size and int(zeros.flat[0]) == np.iinfo(zeros.dtype).min)
        if position == 2:
            kept = int(array.flat[0]) in (0, np.iinfo(array.dtype).min)
            middle = (int(np.iinfo(array.dtype).min) + int(np.iinfo(array.dtype).max) + 1) // 2
            made = array if kept else np.full(array.shape, middle, array.dtype)
            return made, int(made.flat[0])
        scale = self.network.array(node.input[1])
        own = (scale.tobytes(), zeros.tobytes())
        base = CUT_SCALE if lowest else SCALE
        if own not in self.scales:
            self.scales[own] = base * (1 - NARROWER) ** len(self.scales)
        return np.full(array.shape, self.scales[own], array.dtype), round(self.scales[own], 9)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def _described(value: onnx.ValueInfoProto) -> list[object]:
    dims = value.type.tensor_type.shape.dim
    return [value.name, value.type.tensor_type.elem_type, [dim.dim_param or dim.dim_value for dim in dims]]


@lru_cache(maxsize=512)
def _filled(dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers without denormals among them, the same ones for the same type and shape."""
    rng = np.random.default_rng(0)
    size = math.prod(shape)
    if dtype.kind == "f":
        few = (rng.standard_normal(PERIOD) / math.prod(shape[1:]) ** 0.5).astype(dtype)
        # One number for each channel may be a variance.
        few = np.abs(few) if len(shape) == 1 else few
    elif dtype.kind == "b":
        few = rng.integers(0, 2, PERIOD).astype(dtype)
    else:
        few = rng.integers(max(np.iinfo(dtype).min, -100), min(np.iinfo(dtype).max, 100), PERIOD).astype(dtype)
    return np.resize(few, size).reshape(shape)
