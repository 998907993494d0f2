"""Transposes lifted towards their inverse, so that both vanish and what is between reads its layer directly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import bypass, constant, drop_unused_nodes, initializer, only_user, put, replace
from edgekit.quantize.macs import macs
from edgekit.quantize.rewrites.asking import Pays
from edgekit.quantize.rewrites.factors import fold_factors

UNARY = frozenset(
    {"Cast", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu"}
    | {"Sigmoid", "Softplus", "Tanh"}
)
"""Operators that treat each number alone, and have one input that is no bound."""
BINARY = frozenset({"Add", "Sub", "Mul", "Div"})

Order = tuple[int, ...]
"""Of axes: the output's axis i is the input's axis order[i]."""


def cancel_transposes(graph: ir.Graph) -> int:
    """Lift each Transpose past elementwise operators, where it meets its inverse on all ways.

    Left where it does not: one more transpose elsewhere is no gain.
    """
    done = 0
    for node in _transposes(graph):
        ways = _ways(node, lambda _: False)
        done += ways.left == 0 and _lift(graph, node, ways)
    drop_unused_nodes(graph)  # The inverse ones, where nothing else reads them.
    return done


def linears_to_convolutions(graph: ir.Graph, pays: Pays) -> list[str]:
    """Lift a Transpose from channels last to channels first past products over the channels, too.

    These become 1x1 convolutions, whose int8 kernel adds the bias and rounds; behind a MatMul both are done in fp32. So
    the block of ConvNeXt (Z. Liu et al., *A ConvNet for the 2020s*, 2022, figure 4) is int8 up to its sum.
    """
    done: list[str] = []
    for node in _transposes(graph):
        ways = _ways(node, lambda linear: pays(linear, {"Conv.pointwise": macs(linear)}))
        # One transpose may be needed before the first product, in place of the one behind the last.
        if ways.linears and ways.left <= 1 and _lift(graph, node, ways):
            done += ways.linears
    if done:
        fold_factors(graph)  # What was added to the products.
        drop_unused_nodes(graph)
    return done


@dataclass(slots=True)
class _Ways:
    """What lifting a transpose meets.

    Args:
        left: how many transposes would be needed where the ways end.
        passed: the operators that it passes.
        linears: names of the products among them, which become convolutions.
    """

    left: int = 0
    passed: set[ir.Node] = field(default_factory=set)
    linears: list[str] = field(default_factory=list)


def _transposes(graph: ir.Graph) -> list[ir.Node]:
    return [node for node in graph if node.op_type == "Transpose" and "perm" in node.attributes]


def _order(node: ir.Node) -> Order:
    return tuple(node.attributes["perm"].as_ints())


def _ways(transpose: ir.Node, allowed: Callable[[ir.Node], bool]) -> _Ways:
    """Where a Transpose ends if it is lifted as far as it goes; `allowed` says which products become convolutions."""
    ways, order = _Ways(), _order(transpose)
    values = list(transpose.inputs)
    while values:
        value = values.pop()
        node = None if value is None else value.producer()
        if constant(value) is not None or (node is not None and _inverts(node, order)):
            continue
        passes = node is not None and value is not None and only_user(value) and _passes(node, order, allowed)
        if node is None or not passes:
            ways.left += 1
            continue
        ways.passed.add(node)
        ways.linears += [str(node.name)] if node.op_type == "MatMul" else []
        values += _moved(node)
    return ways


def _inverts(node: ir.Node, order: Order) -> bool:
    if node.op_type != "Transpose" or "perm" not in node.attributes:
        return False
    return [_order(node)[axis] for axis in order] == list(range(len(order)))


def _moved(node: ir.Node) -> list[ir.Value | None]:
    """The inputs that a transpose moves to when it is lifted past a node."""
    return list(node.inputs if node.op_type in BINARY else node.inputs[:1])


def _passes(node: ir.Node, order: Order, allowed: Callable[[ir.Node], bool]) -> bool:
    """Whether a node does the same with its inputs transposed."""
    rank = len(order)
    if node.domain not in ("", "ai.onnx") or _rank(node.outputs[0]) != rank:
        return False
    if node.op_type in UNARY | BINARY:
        # A constant gets the axes that broadcasting gives it.
        return all(_rank(value) == rank or constant(value) is not None for value in _moved(node))
    if node.op_type != "MatMul" or rank not in (3, 4) or order != (0, rank - 1, *range(1, rank - 1)):
        return False
    weight = constant(node.inputs[1])
    return weight is not None and weight.ndim == 2 and _rank(node.inputs[0]) == rank and allowed(node)


def _rank(value: ir.Value | None) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _lift(graph: ir.Graph, transpose: ir.Node, ways: _Ways) -> bool:
    assert transpose.inputs[0] is not None
    return bypass(graph, transpose, _turned(graph, transpose.inputs[0], transpose, transpose, ways.passed))


def _turned(graph: ir.Graph, value: ir.Value, reader: ir.Node, transpose: ir.Node, passed: set[ir.Node]) -> ir.Value:
    """A value with its axes in the order that a Transpose gives them, for a node that reads it."""
    node, numbers, order = value.producer(), constant(value), _order(transpose)
    if numbers is not None:
        full = numbers.reshape((1,) * (len(order) - numbers.ndim) + numbers.shape).transpose(order)
        return initializer(graph, f"{value.name}.turned", np.ascontiguousarray(full))
    if node is not None and _inverts(node, order):
        assert node.inputs[0] is not None
        return node.inputs[0]
    shape = None if value.shape is None else ir.Shape([value.shape[axis] for axis in order])
    if node is None or node not in passed:
        made = put(graph, reader, ir.node("Transpose", [value], {"perm": order}, name=f"{reader.name}_turned"), value)
        made.shape = shape
        return made
    for index, given in enumerate(_moved(node)):
        assert given is not None
        node.replace_input_with(index, _turned(graph, given, node, transpose, passed))
    if node.op_type == "MatMul":
        node = _convolution(graph, node)
    node.outputs[0].shape = shape
    return node.outputs[0]


def _convolution(graph: ir.Graph, linear: ir.Node) -> ir.Node:
    """Put a 1x1 convolution in the place of a product over the channels."""
    weight, spatial = constant(linear.inputs[1]), len(linear.outputs[0].shape or ()) - 2
    assert weight is not None
    kernel = np.ascontiguousarray(weight.T).reshape(*weight.T.shape, *[1] * spatial)
    stem = linear.inputs[1]
    assert stem is not None
    inputs = [linear.inputs[0], initializer(graph, f"{stem.name}.kernel", kernel)]
    made = ir.node("Conv", inputs, {"kernel_shape": [1] * spatial}, name=linear.name)
    replace(graph, linear, made)
    return made
