"""Removing nodes that change nothing: they would stand between an operator and the Q that it fuses with."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgekit.quantize.graph import bypass, constant, scalar


def remove_no_ops(graph: ir.Graph) -> int:
    """Remove Identity, Dropout (inference), and the addition or subtraction of a zero."""
    done = 0
    for node in list(graph):
        source = _passed_on(node)
        if source is not None:
            done += bypass(graph, node, source)
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
    if node.op_type == "Add":
        return next((value for value, other in _both_ways(node) if scalar(other, value) == 0), None)
    return first if node.op_type == "Sub" and scalar(node.inputs[1], first) == 0 else None


def _both_ways(node: ir.Node) -> tuple[tuple[ir.Value | None, ir.Value | None], ...]:
    return ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0]))


def _mask_is_used(node: ir.Node) -> bool:
    return any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
