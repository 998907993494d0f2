"""Removing nodes that change nothing: they would stand between an operator and the Q that it fuses with."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import constant


def remove_no_ops(graph: ir.Graph) -> int:
    """Remove Identity, Dropout (inference), a ReLU of a ReLU, and the addition or subtraction of a zero."""
    done = 0
    for node in list(graph):
        source = _passed_on(node)
        if source is not None:
            done += _bypass(graph, node, source)
    return done


def _passed_on(node: ir.Node) -> ir.Value | None:
    """The input that a node passes on as it is, or None."""
    first = node.inputs[0] if node.inputs else None
    if node.domain not in ("", "ai.onnx") or first is None:
        return None
    if node.op_type == "Identity":
        return first
    if node.op_type == "Dropout":
        training = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.array(0)
        return first if training is not None and not training.any() and not _mask_is_used(node) else None
    if node.op_type == "Relu":
        producer = first.producer()
        return first if producer is not None and producer.op_type == "Relu" else None
    if node.op_type == "Add":
        return next((value for value, other in _both_ways(node) if _is_neutral(other, value)), None)
    return first if node.op_type == "Sub" and _is_neutral(node.inputs[1], first) else None


def _both_ways(node: ir.Node) -> tuple[tuple[ir.Value | None, ir.Value | None], ...]:
    return ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0]))


def _mask_is_used(node: ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs[1:])


def _is_neutral(zeros: ir.Value | None, value: ir.Value | None) -> bool:
    """Whether `zeros` is zero and does not widen the shape of `value` by broadcasting."""
    numbers = constant(zeros)
    if numbers is None or numbers.any() or value is None:
        return False
    if numbers.ndim == 0:
        return True
    return value.shape is not None and numbers.size == 1 and numbers.ndim <= len(value.shape)


def _bypass(graph: ir.Graph, node: ir.Node, source: ir.Value) -> bool:
    output = node.outputs[0]
    if output.is_graph_output():
        # The name of an output is a promise to whoever runs the file, so the value in front of the node takes it over.
        if source.producer() is None or source.is_graph_output() or constant(source) is not None:
            return False
        name = output.name
        ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
        output.name, source.name = None, name
    else:
        ir.convenience.replace_all_uses_with(output, source)
    graph.remove(node, safe=True)
    return True
