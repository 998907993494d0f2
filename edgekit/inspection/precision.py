"""In which type a node of an ONNX file computes, as far as the file tells.

A node between DequantizeLinear and QuantizeLinear becomes one int8 kernel where ONNX Runtime has a kernel that fuses
all three; where it has none, or where one of them is missing, the node computes in fp32. What a certain ONNX Runtime
really makes of a file on a certain machine, `edgekit quantize --explain` tells.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import onnx

from edgekit.inspection.facts import INT8
from edgekit.inspection.reading import type_name
from edgekit.inspection.sizes import Kinds
from edgekit.macs import weight_input
from edgekit.profiling.network import DEQUANTIZE, QUANTIZE

INTEGER = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
"""Operators that work on 8-bit integers by themselves."""
PACKED = frozenset({"MatMulNBits", "MatMulBnb4"})
"""Operators whose weights alone have few bits."""
NEEDS_Q = frozenset({"Conv"})
"""Operators whose int8 kernel has to write int8; that of a matrix product can write fp32."""
FUSES = NEEDS_Q | {"MatMul", "Gemm"}
MERGED = frozenset({"Relu", "Clip", "LeakyRelu"})
"""Activations that ONNX Runtime merges into the kernel before the QuantizeLinear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Who makes and who reads the values of a graph."""

    makers: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> Placed:
        """Of a graph."""
        makers = {name: node for node in graph.node for name in node.output if name}
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                readers[name].append(node)
        return cls(makers=makers, readers=dict(readers))

    def is_dequantized(self, name: str) -> bool:
        """Whether a value comes right out of a DequantizeLinear."""
        maker = self.makers.get(name)
        return maker is not None and maker.op_type == DEQUANTIZE

    def is_quantized(self, name: str) -> bool:
        """Whether all that reads a value quantizes it, behind one activation at most."""
        readers = self.readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type in MERGED:
            readers = self.readers.get(readers[0].output[0], [])
        return bool(readers) and all(node.op_type == QUANTIZE for node in readers)


def precision_of(node: onnx.NodeProto, placed: Placed, kinds: Kinds) -> tuple[str, str]:
    """The type in which a node that multiplies computes, and why it is not int8."""
    why = "" if node.op_type in INTEGER else _why_not(node, placed)
    if not why:
        return INT8, ""
    known = [kinds[name][0] for name in (*node.output, *node.input) if name in kinds]
    return type_name(known[0]) if known else "float32", why


def _why_not(node: onnx.NodeProto, placed: Placed) -> str:
    """Why no int8 kernel can come of a node; empty if one can."""
    place = weight_input(node.op_type)
    data = bool(node.input) and placed.is_dequantized(node.input[0])
    weights = place is not None and place < len(node.input) and placed.is_dequantized(node.input[place])
    quantized = node.op_type not in NEEDS_Q or placed.is_quantized(node.output[0])
    lacks = (
        (node.op_type in PACKED, "its weights alone have few bits"),
        (not data and not weights, "neither its data nor its weights are quantized"),
        (not data, "its weights alone are quantized"),
        (not weights, "its weights are not quantized (ONNX Runtime may do so when it loads the file)"),
        (node.op_type not in FUSES, f"ONNX Runtime has no int8 kernel for {node.op_type}"),
        (not quantized, "nothing quantizes what it makes, so no kernel fuses"),
    )
    return next((why for lacking, why in lacks if lacking), "")
