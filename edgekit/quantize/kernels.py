"""What ONNX Runtime really runs: the graph after its own optimizations."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgekit.device.session import open_session
from edgekit.quantize.plan import NodePlacement, QuantPlan

INT8_KERNELS = frozenset(
    {
        "ConvInteger",
        "MatMulInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "QGemm",
        "QLinearConv",
    }
)
MOVERS = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Flatten",
        "Identity",
        "MaxPool",
        "NhwcMaxPool",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    }
)
"""Operators that work on whatever type comes in."""
_ADDED = re.compile(r"(_token_\d+|_nchwc|_nhwc|/[A-Za-z]+Fusion[A-Za-z]*/?)+$")
"""What ONNX Runtime appends to the name of a node that it changes."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """The nodes of an optimized graph, by what made a value and by their original name."""

    nodes: tuple[ir.Node, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How often each operator occurs."""
        return dict(sorted(Counter(node.op_type for node in self.nodes).items()))

    def made(self, value: str) -> ir.Node | None:
        """The node that makes a value."""
        return next((node for node in self.nodes if any(output.name == value for output in node.outputs)), None)

    def called(self, name: str) -> ir.Node | None:
        """The node that still has the name of a node of the source."""
        return next((node for node in self.nodes if _ADDED.sub("", str(node.name)) == name), None)


def kernels_of(path: Path, dtype: str = "uint8") -> Kernels:
    """The graph that ONNX Runtime makes of a file on this machine's CPU.

    Files with `int8` activations are for ARM. On x86, ONNX Runtime would make `uint8` of those, and is told not to, so
    that the graph is the one that ARM runs.
    """
    config = {"session.qdqisint8allowed": "1"} if dtype == "int8" else {}
    with tempfile.TemporaryDirectory(prefix="edgekit-kernels-") as folder:
        target = Path(folder) / "optimized.onnx"
        open_session(path, threads=1, config=config, optimized_path=target)
        return Kernels(tuple(ir.load(target).graph))


def placements(source: ir.Model, plan: QuantPlan, kernels: Kernels) -> tuple[NodePlacement, ...]:
    """What became of each node of `source`, the rewritten fp32 graph.

    A planned node counts as int8 only if the optimized graph computes it, or the operator that it was merged into, on
    8-bit integers; one whose fp32 kernel is still there is reported as not fused.
    """
    planned = set(plan.nodes)
    rows = []
    for node in source.graph:
        name, precision, reason = str(node.name), "fp32", plan.reasons.get(str(node.name), "")
        if name in planned:
            kernel = _kernel(node, kernels)
            if kernel is not None and not is_int8(kernel):
                reason = f"planned, but ONNX Runtime runs it as {kernel.op_type} in fp32"
            else:
                precision = "int8"
                reason = "merged into a neighbour" if kernel is None else f"runs as {kernel.op_type}"
        fp32_us, int8_us = plan.costs_us.get(name, (None, None))
        rows.append(
            NodePlacement(
                name=name, op=node.op_type, precision=precision, reason=reason, fp32_us=fp32_us, int8_us=int8_us
            )
        )
    return tuple(rows)


def is_int8(kernel: ir.Node) -> bool:
    """Whether a node of an optimized graph works on 8-bit integers."""
    if kernel.op_type.startswith("QLinear") or kernel.op_type in INT8_KERNELS:
        return True
    if kernel.op_type not in MOVERS:
        return False
    for value in kernel.inputs:
        maker = value.producer() if value is not None else None
        if maker is not None and maker.op_type not in ("DequantizeLinear", "Constant"):
            return maker.op_type == "QuantizeLinear" or is_int8(maker)
    return False


def _kernel(node: ir.Node, kernels: Kernels) -> ir.Node | None:
    """The node of the optimized graph that stands for a node of the source, or None if it was merged into another."""
    name, value = str(node.name), str(node.outputs[0].name)
    by_name = kernels.called(name) or kernels.called(f"{name}_int8")
    if by_name is not None:
        return by_name
    made = kernels.made(f"{value}_int8") or kernels.made(value)
    while made is not None and made.op_type in ("QuantizeLinear", "DequantizeLinear"):
        maker = made.inputs[0].producer() if made.inputs[0] is not None else None
        if made.op_type == "QuantizeLinear" and maker is not None and maker.op_type == "DequantizeLinear":
            return None
        made = maker
    return made
