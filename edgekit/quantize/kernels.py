"""What ONNX Runtime really runs: the graph after its own optimizations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from edgekit.device.session import open_session
from edgekit.quantize.plan import NodePlacement, QuantPlan

INT8_KERNELS = frozenset(
    {"ConvInteger", "MatMulInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"}
)
FLOAT_KERNELS_OF = {
    "Conv": ("Conv", "FusedConv", "NhwcFusedConv"),
    "Gemm": ("Gemm", "FusedGemm"),
    "MatMul": ("MatMul", "FusedMatMul"),
}


def optimized(path: Path, folder: Path) -> ir.Model:
    """The graph that ONNX Runtime makes of a file on this machine's CPU."""
    target = folder / "optimized.onnx"
    open_session(path, threads=1, optimized_path=target)
    return ir.load(target)


def is_int8(op: str) -> bool:
    """Whether an operator of an optimized graph computes on 8-bit integers."""
    return op.startswith("QLinear") or op in INT8_KERNELS


def read(
    source: ir.Model, plan: QuantPlan, path: Path, folder: Path
) -> tuple[tuple[NodePlacement, ...], Mapping[str, int]]:
    """What became of each node of `source`, and the operators of the optimized graph with their counts.

    A node counts as int8 only if the optimized graph has a kernel that gives its value, or its place in the chain, in
    int8; a planned one whose fp32 kernel is still there is reported as not fused.
    """
    graph = optimized(path, folder).graph
    kernels = Counter(node.op_type for node in graph)
    float_values = {value.name for node in graph for value in node.outputs if _is_plain_float(node)}
    rows = []
    planned = set(plan.nodes)
    for node in source.graph:
        name = str(node.name)
        if name not in planned:
            rows.append(
                NodePlacement(name=name, op=node.op_type, precision=_other(plan), reason=plan.reasons.get(name, ""))
            )
            continue
        left = [value.name for value in node.outputs if value.name in float_values]
        rows.append(
            NodePlacement(
                name=name,
                op=node.op_type,
                precision="fp32" if left else "int8",
                reason="planned, but ONNX Runtime did not fuse it" if left else "fused",
            )
        )
    return tuple(rows), dict(sorted(kernels.items()))


def _is_plain_float(node: ir.Node) -> bool:
    return not is_int8(node.op_type) and node.op_type not in (
        "QuantizeLinear",
        "DequantizeLinear",
        "Cast",
        "Mul",
        "Add",
    )


def _other(plan: QuantPlan) -> str:
    return "fp16" if plan.scheme == "half" else "fp32"
