"""Small graphs out of a large one: the groups' nodes under plain names, with cheap numbers in place of the weights.

Two graphs that differ in names and weights alone come out as the same bytes, and have the same key.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.profiling.network import DEQUANTIZE, QUANTIZE, Network

KEPT = 1024
"""Integer and truth constants up to so many numbers are kept: sizes, axes, indexes, paddings."""
PERIOD = 251
"""Weights repeat after so many numbers, so that a request is small."""
SCALE = 0.05
CUT_SCALE = 6 / 255
"""Of values whose zero point is the lowest integer: they come from a ReLU, or from a ReLU6, which then costs nothing."""
NARROWER = 0.01
"""By so much each further scale of a graph differs from the one before: what has one scale has one, and no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A small graph.

    Args:
        key: digest of its operators, attributes, sizes and types, not of its weights.
        graph: an ONNX file.
    """

    key: str
    graph: bytes


def cut(network: Network, centre: Sequence[int], around: Sequence[Sequence[int]] = ()) -> Cut:
    """The graph of a group of nodes and the groups that read what it makes.

    Values between the groups in `around` are cut: one side becomes an output, the other an input of the graph, and
    each group has inputs of its own. So the graph holds exactly what each group holds alone, but for the border between
    `centre` and the others.

    Args:
        network: the nodes' graph.
        centre: nodes, in order.
        around: groups of nodes, each in order.
    """
    return _Cutter(network).cut(centre, around)


class _Cutter:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.initializers: list[TensorProto] = []
        self.described: list[object] = []
        self.scales: dict[tuple[bytes, bytes], float] = {}
        self.first: dict[str, float] = {}
        self.scale_of: dict[str, float] = {}

    def cut(self, centre: Sequence[int], around: Sequence[Sequence[int]]) -> Cut:
        inner = self._group(centre, {})
        if not around:
            self._export([name for index in centre for name in self._exits(index, centre)], inner)
        for group in around:
            names = self._group(group, inner)
            self._export([name for index in group for name in self._exits(index, group)], names)
        ends = [(value.type.tensor_type.elem_type, _sizes(value)) for value in (*self.inputs, *self.outputs)]
        used = sorted({node.domain for node in self.nodes})
        opsets = {domain: self.network.opsets.get(domain, 1) for domain in used}
        key = hashlib.sha256(json.dumps([opsets, self.described, ends]).encode()).hexdigest()[:32]
        graph = helper.make_graph(self.nodes, "piece", self.inputs, self.outputs, self.initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*entry) for entry in opsets.items()],
            ir_version=self.network.ir_version,
        )
        return Cut(key=key, graph=model.SerializeToString(deterministic=True))

    def _exits(self, index: int, group: Sequence[int]) -> list[str]:
        """What a node makes for others than its group."""
        network, members = self.network, set(group)
        return [
            name
            for name in self.network.nodes[index].output
            if name and (name in network.outputs or not members.issuperset(network.readers.get(name, ())))
        ]

    def _group(self, group: Sequence[int], known: dict[str, str]) -> dict[str, str]:
        """Add the nodes of a group; returns the new names of what it makes."""
        names = dict(known)
        self.described.append(len(group))
        for index in group:
            self._node(self.network.nodes[index], names)
        return names

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
                    names[name] = f"x{len(self.inputs)}"
                    kind, shape = self.network.kinds[name]
                    self.inputs.append(helper.make_tensor_value_info(names[name], kind, shape))
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
            self.outputs.append(helper.make_tensor_value_info(names[name], *self.network.kinds[name]))

    def _constant(self, node: onnx.NodeProto, position: int, name: str, bias: np.float32 | None) -> str:
        tensor = self.network.constants[name]
        new = f"c{len(self.initializers)}"
        array, told = self._numbers(node, position, tensor)
        if bias is not None and node.op_type == DEQUANTIZE and position == 1:
            array, told = np.full(array.shape, bias, array.dtype), None
        self.first[new] = float(array.flat[0]) if array.size else 0.0
        self.initializers.append(numpy_helper.from_array(array, new))
        self.described.append([new, tensor.data_type, list(tensor.dims), told])
        return new

    def _numbers(self, node: onnx.NodeProto, position: int, tensor: TensorProto) -> tuple[np.ndarray, object]:
        """Numbers in place of a constant's, and what of them belongs into the key."""
        array = numpy_helper.to_array(tensor)
        if node.op_type in (QUANTIZE, DEQUANTIZE) and position in (1, 2):
            return self._scale(node, position, array)
        if array.dtype.kind in "iub" and (array.itemsize > 1 or array.dtype.kind == "b") and array.size <= KEPT:
            if array.dtype == np.int32 and node.op_type == DEQUANTIZE:  # A bias.
                return np.zeros_like(array), None
            return array, hashlib.sha256(array.tobytes()).hexdigest()[:16]
        if array.size <= 1 or node.op_type in ("Resize", "Upsample"):
            return array, hashlib.sha256(array.tobytes()).hexdigest()[:16]
        return _filled(array.dtype, array.shape), None

    def _scale(self, node: onnx.NodeProto, position: int, array: np.ndarray) -> tuple[np.ndarray, object]:
        zero = self.network.constants.get(node.input[2]) if len(node.input) > 2 else None
        zeros = np.zeros(1, np.uint8) if zero is None else numpy_helper.to_array(zero)
        if array.size > 1 or zeros.dtype == np.int32:
            return (np.full(array.shape, SCALE / 8, array.dtype), None) if position == 1 else (array, None)
        lowest = bool(zeros.dtype.kind in "iu" and zeros.size and int(zeros.flat[0]) == np.iinfo(zeros.dtype).min)
        if position == 2:
            kept = int(array.flat[0]) in (0, np.iinfo(array.dtype).min)
            middle = (int(np.iinfo(array.dtype).min) + int(np.iinfo(array.dtype).max) + 1) // 2
            made = array if kept else np.full(array.shape, middle, array.dtype)
            return made, int(made.flat[0])
        scale = numpy_helper.to_array(self.network.constants[node.input[1]])
        own = (scale.tobytes(), zeros.tobytes())
        base = CUT_SCALE if lowest else SCALE
        if own not in self.scales:
            self.scales[own] = base * (1 - NARROWER) ** len(self.scales)
        return np.full(array.shape, self.scales[own], array.dtype), round(self.scales[own], 9)


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _filled(dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """Numbers without denormals among them, the same ones for the same type and shape."""
    rng = np.random.default_rng(0)
    size = math.prod(shape)
    if dtype.kind == "f":
        few = (rng.standard_normal(PERIOD) / math.prod(shape[1:]) ** 0.5).astype(dtype)
    elif dtype.kind == "b":
        few = rng.integers(0, 2, PERIOD).astype(dtype)
    else:
        few = rng.integers(max(np.iinfo(dtype).min, -100), min(np.iinfo(dtype).max, 100), PERIOD).astype(dtype)
    return np.resize(few, size).reshape(shape)
