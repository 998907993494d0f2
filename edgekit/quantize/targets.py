"""What the kinds of device ask of a quantized file, and what this machine can tell of it."""

from __future__ import annotations

from typing import Literal, cast, get_args

import numpy as np
import onnx_ir as ir

from edgekit.device.environment import isa_target

CpuTarget = Literal["x86-vnni", "x86-avx2", "arm64"]
Target = Literal[CpuTarget, "cuda", "tensorrt", "size"]
TARGETS: tuple[Target, ...] = get_args(Target)
WEIGHT_LIMIT = {"x86-vnni": 127, "x86-avx2": 63, "arm64": 127, "cuda": 0, "tensorrt": 127, "size": 128}
"""Largest absolute integer of a weight: VPMADDUBSW adds two products in 16 bits, and saturates with 8-bit weights."""
ACTIVATION = {"x86-vnni": "uint8", "x86-avx2": "uint8", "arm64": "int8", "tensorrt": "int8", "size": "uint8"}
"""Type of the activations."""
SYMMETRIC = frozenset({"tensorrt"})
"""Targets whose zero points are all zero; behind a ReLU half of the integers go unused."""
FLOAT_BIAS = frozenset({"tensorrt"})
"""Targets whose kernels add the bias in fp32."""
NO_CPU = frozenset({"cuda", "tensorrt"})
"""Targets whose files this machine's CPU runs only as they are written: ONNX Runtime's optimizations for the CPU make
something else of them, and crash on fp16 Transformers (1.32)."""
_INTEGER = frozenset(
    {"QuantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "ConvInteger", "MatMulInteger", "QLinearConv"}
    | {"QLinearMatMul", "DynamicQuantizeMatMul"}
)
"""Operators that go with integer arithmetic: files with weights alone in integers have none of them."""
NOT_RUN = "not run on such a device"


def target_here() -> CpuTarget:
    """The target that suits the CPU of this machine.

    >>> target_here() in TARGETS
    True
    """
    return target_for(isa_target())


def target_for(isa: str) -> CpuTarget:
    """The target that suits a CPU, which `edgekit.device.isa_target` names; else that whose sums never overflow.

    >>> target_for("arm64"), target_for("x86"), target_for("riscv64")
    ('arm64', 'x86-avx2', 'x86-avx2')
    """
    return cast(CpuTarget, isa) if isa in get_args(CpuTarget) else "x86-avx2"


def target_of(graph: ir.Graph) -> CpuTarget | Literal["any"]:
    """The kind of CPU that an int8 file is for, by its integers; `any` where it is right on all of them.

    8-bit weights beside unsigned activations overflow sums where there is no VNNI; signed activations are ARM's.
    Weights alone (they are turned into floats again) and those of 7 bits are right everywhere.
    """
    if not any(node.op_type in _INTEGER for node in graph):
        return "any"
    arrays = [value.const_value.numpy() for value in graph.initializers.values() if value.const_value is not None]
    weights = [array.astype(np.int16) for array in arrays if array.dtype == np.int8 and array.ndim > 1]
    if max((np.abs(each).max(initial=0) for each in weights), default=0) <= WEIGHT_LIMIT["x86-avx2"] + 1:
        return "any"
    kinds = [node.inputs[2] for node in graph if node.op_type == "QuantizeLinear" and len(node.inputs) > 2]
    signed = [kind is not None and kind.dtype == ir.DataType.INT8 for kind in kinds]
    return "arm64" if 2 * sum(signed) > len(signed) else "x86-vnni"


def seen_here(target: str) -> str:
    """What this machine, by the instructions that its processor has, could tell of a file for `target`.

    >>> seen_here("tensorrt")
    'not run on such a device'
    """
    here = isa_target()
    if target == "size":
        return "run here: any processor takes it"
    if target == here:
        return "kernels read and run here"
    if (target, here) == ("x86-avx2", "x86-vnni"):
        return "run here, where VNNI hides what saturates without it: the 7-bit weights rule that out"
    if target == "x86-vnni" and here in ("x86-avx2", "x86"):
        return "run here without VNNI, where sums of products may saturate: other outputs than on its device"
    if target == "arm64" and here.startswith("x86"):
        return f"kernels read as ARM takes them (session.qdqisint8allowed); {NOT_RUN}"
    return NOT_RUN
