"""Where int8 pays: exactly where ONNX Runtime has a kernel that fuses with its Q and DQ nodes, and is fast."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant, only_user
from edgekit.quantize.rewrites.channelwise import covers_image

COMPUTE = frozenset({"Conv", "Gemm", "MatMul"})
"""What int8 makes faster; everything else only goes along."""
ELEMENTWISE = frozenset({"Add", "Mul"})
UNARY = frozenset({"Sigmoid", "LeakyRelu", "AveragePool", "GlobalAveragePool"})
SAME_SCALE = frozenset(
    {"MaxPool", "Reshape", "Flatten", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "DepthToSpace", "Resize"}
)
"""Operators that only move or pick values: input and output share one scale, and Q and DQ fall away around them."""
ASKED = "it was asked to stay in fp32"
FLOAT_OUTPUT = frozenset({"Gemm", "MatMul"})
"""Kernels that can give their result as fp32, so that a last layer loses nothing to rounding."""
STEM_INPUTS = {"x86-vnni": 32, "x86-avx2": 32, "arm64": 0, "tensorrt": 0}
"""A first convolution that sums over no more numbers than this stays in fp32.

Measured on AVX512-VNNI: 3x3 over three channels, 16 to 64 outputs, strides 1 and 2, is 3 % to 32 % slower for a whole
network if the first convolution is in int8 (gathering the inputs is what takes time); 7x7 (147 numbers) is far faster.
"""


@dataclass(slots=True)
class Placement:
    """The decision for a graph.

    Args:
        nodes: names of the nodes that run in int8, fused activations included.
        fused: for a node the activation that vanishes into its output's range.
        quantized: names of the values that become 8-bit integers.
        source: for a value that shares the scale of another one, that other one.
        reasons: why each other node stays in fp32.
        inputs_only: Q and DQ are for the int8 nodes that read a value; none stands behind a node for all its readers.
        exact: int8 nodes and values that they read in fp32 even where others read integers.
    """

    nodes: set[str] = field(default_factory=set)
    fused: dict[str, ir.Node] = field(default_factory=dict)
    quantized: set[str] = field(default_factory=set)
    source: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    inputs_only: bool = False
    exact: set[tuple[str, str]] = field(default_factory=set)

    def root(self, value: str) -> str:
        """The value whose scale `value` has."""
        while value in self.source:
            value = self.source[value]
        return value


def place(graph: ir.Graph, target: str, *, keep_float: Collection[str] = ()) -> Placement:
    """Choose the int8 nodes of a graph and the values between them.

    Args:
        graph: the fp32 graph after the rewrites.
        target: the kind of device.
        keep_float: names of nodes that stay in fp32 whatever the rules say.
    """
    nodes: set[str] = set()
    reasons: dict[str, str] = {}
    for node in graph:
        name = _name(node)
        if name in nodes:  # An activation that the node before it has taken along.
            continue
        why = ASKED if name in keep_float else _refusal(node, target, nodes)
        if why is not None:
            reasons[name] = why
            continue
        nodes.add(name)
        activation = activation_behind(node)
        if activation is not None and _name(activation) not in keep_float:
            nodes.add(_name(activation))
    for name in _islands(graph, nodes):
        nodes.discard(name)
        reasons[name] = "an island without matrix products: int8 would cost more than it gives"
    placement = wired(graph, nodes)
    placement.reasons = reasons
    return placement


def wired(graph: ir.Graph, nodes: Collection[str]) -> Placement:
    """The placement with these int8 nodes: which activations they take along, and which values become integers."""
    placement = Placement(nodes=set(nodes))
    for node in graph:
        activation = activation_behind(node) if _name(node) in placement.nodes else None
        if activation is not None and _name(activation) in placement.nodes:
            placement.fused[_name(node)] = activation
    fused = {id(activation) for activation in placement.fused.values()}
    for node in graph:
        if _name(node) in placement.nodes and id(node) not in fused:
            _quantize_values(node, placement)
    return placement


def activations_of(node: ir.Node) -> list[ir.Value]:
    """A node's inputs that depend on the graph's inputs."""
    inputs = node.inputs[:1] if node.op_type in SAME_SCALE | {"Conv", "Gemm"} else node.inputs
    return [value for value in inputs if value is not None and constant(value) is None]


def activation_behind(node: ir.Node) -> ir.Node | None:
    """The ReLU or Clip that vanishes into a node's range: what it cuts off lies below the range's lowest integer."""
    if node.op_type not in COMPUTE | ELEMENTWISE | {"Concat"} or not only_user(node.outputs[0]):
        return None
    follower = next(iter(node.outputs[0].uses())).node
    cuts = follower.op_type == "Relu" or (follower.op_type == "Clip" and _cuts_at_zero(follower))
    return follower if cuts else None


def weight_refusal(node: ir.Node, target: str) -> str | None:
    """Why a node of `COMPUTE` stays in fp32, or None if int8 can take it."""
    return _OWN_RULES[node.op_type](node, target)


def outputs_of(node: ir.Node, placement: Placement) -> list[ir.Value]:
    """The values that leave a node once its activation is fused."""
    last = placement.fused.get(_name(node), node)
    return list(last.outputs if last.op_type == "Split" else last.outputs[:1])


def produced(graph: ir.Graph, placement: Placement) -> set[str]:
    """The values that all their readers, int8 or not, get as integers: an int8 kernel makes nothing else."""
    makers = () if placement.inputs_only else (node for node in graph if node.name in placement.nodes)
    return {str(value.name) for node in makers for value in outputs_of(node, placement)}


def _name(node: ir.Node) -> str:
    assert node.name is not None
    return node.name


def _from_int8(value: ir.Value | None, nodes: Collection[str]) -> bool:
    producer = None if value is None else value.producer()
    return producer is not None and producer.name in nodes


def _refusal(node: ir.Node, target: str, nodes: Collection[str]) -> str | None:
    """Why a node stays in fp32, or None if it may go to int8."""
    kind = node.op_type
    if node.domain not in ("", "ai.onnx"):
        return f"ONNX Runtime has no int8 kernel for {node.domain}.{kind}"
    if kind in _OWN_RULES:
        why = _OWN_RULES[kind](node, target)
        if why is not None or kind in COMPUTE:
            return why
    if kind in ("Relu", "Clip"):
        return "what it follows runs in fp32"
    if kind in ELEMENTWISE | {"Concat"}:
        return None if any(_from_int8(value, nodes) for value in node.inputs) else "its inputs come in fp32"
    if kind in UNARY | SAME_SCALE:
        return None if _from_int8(node.inputs[0], nodes) else "its input comes in fp32"
    return f"ONNX Runtime has no int8 kernel for {kind}"


def _convolution(node: ir.Node, target: str) -> str | None:
    weight = constant(node.inputs[1])
    if weight is None:
        return "its kernel is computed"
    if weight[0].size <= STEM_INPUTS[target] and _is_input(node.inputs[0]):
        return f"a first convolution over {weight[0].size} numbers is faster in fp32 than gathering them for int8"
    return None


def _is_input(value: ir.Value | None) -> bool:
    """Whether a value is an input of the graph, or one that was only reshaped."""
    while value is not None and (producer := value.producer()) is not None:
        if producer.op_type not in SAME_SCALE:
            return False
        value = producer.inputs[0]
    return True


def _product(node: ir.Node, _target: str) -> str | None:
    weight = constant(node.inputs[1])
    if weight is None:
        return "both sides are computed"
    return None if weight.ndim == 2 else "its weight has more than two dimensions"


def _linear(node: ir.Node, _target: str) -> str | None:
    factors = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    transposes = "transA" in node.attributes and node.attributes["transA"].as_int()
    if constant(node.inputs[1]) is None:
        return "both sides are computed"
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    if biased and constant(node.inputs[2]) is None:
        return "its bias is computed"
    return "it scales or transposes its input" if transposes or any(factor != 1.0 for factor in factors) else None


def _elementwise(node: ir.Node, _target: str) -> str | None:
    return None if len(activations_of(node)) == 2 else "one side is a constant"


def _resize(node: ir.Node, _target: str) -> str | None:
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "nearest"
    return None if mode == "nearest" else f"ONNX Runtime has no int8 kernel for {mode} resizing"


def _average_pool(node: ir.Node, _target: str) -> str | None:
    return None if covers_image(node) else "ONNX Runtime's int8 AveragePool is slow unless it covers the whole image"


_OWN_RULES: dict[str, Callable[[ir.Node, str], str | None]] = {
    "Conv": _convolution,
    "MatMul": _product,
    "Gemm": _linear,
    "Add": _elementwise,
    "Mul": _elementwise,
    "Resize": _resize,
    "AveragePool": _average_pool,
}


def _cuts_at_zero(clip: ir.Node) -> bool:
    low = constant(clip.inputs[1]) if len(clip.inputs) > 1 else None
    return low is not None and float(np.asarray(low).ravel()[0]) == 0.0


def _islands(graph: ir.Graph, nodes: Collection[str]) -> set[str]:
    """Nodes of regions without any operator that int8 makes faster: their Q and DQ cost more than they give.

    A convolution that a rewrite has made of something else goes along, but is no reason of its own.
    """
    region: dict[str, int] = {}
    members: dict[int, set[str]] = {}
    for index, node in enumerate(graph):
        if node.name not in nodes:
            continue
        found = {
            region[producer.name]
            for value in node.inputs
            if value is not None and (producer := value.producer()) is not None and producer.name in region
        }
        names = {_name(node)}.union(*(members.pop(number) for number in found))
        members[index] = names
        region.update(dict.fromkeys(names, index))
    gains = {_name(node) for node in graph if node.op_type in COMPUTE and not _name(node).endswith("_as_conv")}
    return {name for names in members.values() if not names & gains for name in names}


def _quantize_values(node: ir.Node, placement: Placement) -> None:
    for value in activations_of(node):
        assert value.name is not None
        placement.quantized.add(value.name)
    for output in outputs_of(node, placement):
        assert output.name is not None
        readers = [use.node for use in output.uses()]
        if node.op_type in FLOAT_OUTPUT and not any(reader.name in placement.nodes for reader in readers):
            continue
        placement.quantized.add(output.name)
        if node.op_type in SAME_SCALE:
            source = node.inputs[0]
            assert source is not None
            assert source.name is not None
            placement.source[output.name] = source.name
