"""Where Q and DQ stand for a target: ONNX Runtime's own kernels ask for one placement, TensorRT for another."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from edgekit.quantize import placement, tensorrt
from edgekit.quantize.placement import Placement


def place(graph: ir.Graph, target: str, *, keep_float: Collection[str] = ()) -> Placement:
    """Choose the int8 nodes of a graph after the rewrites, and the values between them.

    Args:
        graph: fp32.
        target: the kind of device.
        keep_float: names of nodes that stay in fp32 whatever the rules say.
    """
    if target == "tensorrt":
        return tensorrt.place(graph, keep_float=keep_float)
    return placement.place(graph, target, keep_float=keep_float)


def wired(graph: ir.Graph, nodes: Collection[str], target: str) -> Placement:
    """The placement with these int8 nodes: which activations they take along, and which values become integers."""
    return tensorrt.wired(graph, nodes) if target == "tensorrt" else placement.wired(graph, nodes)
