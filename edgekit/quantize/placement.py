"""Where int8 pays: exactly where ONNX Runtime has a kernel that fuses with its Q and DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, only_user

COMPUTE = frozenset({"Conv", "Gemm", "MatMul"})
"""What int8 makes faster; everything else only goes along."""
ELEMENTWISE = frozenset({"Add", "Mul"})
UNARY = frozenset({"Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool"})
SAME_SCALE = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Slice", "Squeeze", "Unsqueeze", "DepthToSpace"})
"""Operators that only move or pick values: input and output share one scale, and Q and DQ fall away around them."""
FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})
"""Kernels that can give their result as fp32, so that a last layer loses nothing to rounding."""


@dataclass(slots=True)
class Placement:
    """The decision for a graph.

    Args:
        nodes: names of the nodes that run in int8, fused activations included.
        fused: for a node the activation that vanishes into its output's range.
        quantized: names of the values that become 8-bit integers.
        source: for a value that shares the scale of another one, that other one.
        reasons: why each other node stays in fp32.
    """

    nodes: set[str] = field(default_factory=set)
    fused: dict[str, ir.Node] = field(default_factory=dict)
    quantized: set[str] = field(default_factory=set)
    source: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def root(self, value: str) -> str:
        """The value whose scale `value` has."""
        while value in self.source:
            value = self.source[value]
        return value


def place(graph: ir.Graph) -> Placement:
    """Choose the int8 nodes of a graph and the values between them."""
    placement = Placement()
    for node in graph:
        why = _refusal(node, placement)
        if why is None:
            placement.nodes.add(_name(node))
            _fuse_activation(node, placement)
        elif _name(node) not in placement.nodes:
            placement.reasons[_name(node)] = why
    _drop_islands(graph, placement)
    for node in graph:
        if _name(node) in placement.nodes and not _is_fused(node, placement):
            _quantize_values(node, placement)
    return placement


def activations_of(node: ir.Node) -> list[ir.Value]:
    """A node's inputs that depend on the graph's inputs."""
    inputs = node.inputs[:1] if node.op_type in SAME_SCALE | {"Conv", "Gemm"} else node.inputs
    return [value for value in inputs if value is not None and constant(value) is None]


def output_of(node: ir.Node, placement: Placement) -> ir.Value:
    """The value that leaves a node once its activation is fused."""
    return placement.fused[_name(node)].outputs[0] if _name(node) in placement.fused else node.outputs[0]


def _name(node: ir.Node) -> str:
    assert node.name is not None
    return node.name


def _is_fused(node: ir.Node, placement: Placement) -> bool:
    return any(node is activation for activation in placement.fused.values())


def _from_int8(value: ir.Value | None, placement: Placement) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.name in placement.nodes


def _refusal(node: ir.Node, placement: Placement) -> str | None:
    """Why a node stays in fp32, or None if it may go to int8."""
    kind = node.op_type
    if _name(node) in placement.nodes:
        return "its activation is fused"
    if kind == "Conv":
        return None if constant(node.inputs[1]) is not None else "its kernel is computed"
    if kind == "Gemm":
        plain = all(
            node.attributes[name].as_float() == 1.0 for name in ("alpha", "beta") if name in node.attributes
        ) and not ("transA" in node.attributes and node.attributes["transA"].as_int())
        return None if plain and constant(node.inputs[1]) is not None else "it scales or transposes its input"
    if kind == "MatMul":
        weight = constant(node.inputs[1])
        if weight is not None and weight.ndim == 2:
            return None
        return "both sides are computed" if weight is None else "its weight has more than two dimensions"
    if kind in ELEMENTWISE:
        if len(activations_of(node)) != 2:
            return "one side is a constant"
        return None if any(_from_int8(value, placement) for value in node.inputs) else "both sides come in fp32"
    if kind == "Concat":
        return None if any(_from_int8(value, placement) for value in node.inputs) else "all parts come in fp32"
    if kind == "Resize":
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
        if mode != "nearest":
            return f"ONNX Runtime has no int8 kernel for {mode} resizing"
        return None if _from_int8(node.inputs[0], placement) else "its input comes in fp32"
    if kind in UNARY | SAME_SCALE:
        return None if _from_int8(node.inputs[0], placement) else "its input comes in fp32"
    if kind in ("Relu", "Clip"):
        return "it follows no int8 kernel that it could be fused into"
    return f"ONNX Runtime has no int8 kernel for {kind}"


def _fuse_activation(node: ir.Node, placement: Placement) -> None:
    """ReLU and Clip vanish: what they cut off is cut off by the output's range, whose zero point is its lowest integer."""
    output = node.outputs[0]
    if node.op_type not in COMPUTE | ELEMENTWISE | {"Concat"} or not only_user(output):
        return
    follower = output.uses()[0].node
    if follower.op_type == "Relu" or (follower.op_type == "Clip" and _cuts_at_zero(follower)):
        placement.fused[_name(node)] = follower
        placement.nodes.add(_name(follower))


def _cuts_at_zero(clip: ir.Node) -> bool:
    low = constant(clip.inputs[1]) if len(clip.inputs) > 1 else None
    return low is not None and float(np.asarray(low).ravel()[0]) == 0.0


def _drop_islands(graph: ir.Graph, placement: Placement) -> None:
    """Take back regions without any operator that int8 makes faster: their Q and DQ nodes cost more than they give."""
    region: dict[str, int] = {}
    members: dict[int, set[str]] = {}
    for index, node in enumerate(graph):
        if node.name not in placement.nodes:
            continue
        found = {
            region[producer.name]
            for value in node.inputs
            if value is not None and (producer := value.producer()) is not None and producer.name in region
        }
        names = {_name(node)}.union(*(members.pop(number) for number in found))
        members[index] = names
        region.update(dict.fromkeys(names, index))
    kinds = {_name(node): node.op_type for node in graph}
    for names in members.values():
        if not any(kinds[name] in COMPUTE for name in names):
            for name in names:
                placement.nodes.discard(name)
                placement.fused.pop(name, None)
                placement.reasons[name] = (
                    "an island without convolution or matrix product: int8 would cost more than it gives"
                )


def _quantize_values(node: ir.Node, placement: Placement) -> None:
    for value in activations_of(node):
        assert value.name is not None
        placement.quantized.add(value.name)
    output = output_of(node, placement)
    assert output.name is not None
    readers = [use.node for use in output.uses()]
    if node.op_type in FLOAT_OUTPUT and not any(reader.name in placement.nodes for reader in readers):
        return
    placement.quantized.add(output.name)
    if node.op_type in SAME_SCALE or node.op_type == "Resize":
        source = node.inputs[0]
        assert source is not None
        assert source.name is not None
        placement.source[output.name] = source.name
