"""How much arithmetic a node asks for: enough to tell what a graph's time goes into."""

from __future__ import annotations

import math

import onnx_ir as ir

from edgekit.quantize.graph import constant


def macs(node: ir.Node) -> float:
    """Multiply-accumulates of one sample of a node with constant weights; 0 for any other node.

    Sizes that are not known ahead of time (batch, time, image size) count as one.
    """
    if node.op_type in ("LSTM", "GRU", "RNN"):
        steps = node.inputs[0].shape[:1] if node.inputs[0] is not None and node.inputs[0].shape is not None else ()
        return sum(_size(value) for value in node.inputs[1:3]) * _product(steps)
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0.0
    # Each number of the input of a transposed convolution meets each weight of its channel.
    source = node.inputs[0] if node.op_type == "ConvTranspose" else node.outputs[0]
    shape = None if source is None else source.shape
    dims = () if shape is None else shape[2:] if node.op_type.startswith("Conv") else shape[1:-1]
    return _size(node.inputs[1]) * _product(dims)


def elements(value: ir.Value) -> float:
    """Numbers in a value of one sample; sizes that are not known ahead of time count as one."""
    return _product(() if value.shape is None else tuple(value.shape))


def _size(value: ir.Value | None) -> float:
    array = constant(value)
    return 0.0 if array is None else float(array.size)


def _product(dims: object) -> float:
    assert isinstance(dims, tuple)
    return float(math.prod(size for size in dims if isinstance(size, int)))
