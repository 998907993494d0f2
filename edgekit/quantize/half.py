"""fp16 for GPUs: half the weights and half the traffic, with fp32 inputs and outputs."""

from __future__ import annotations

import warnings

import onnx_ir as ir


def converted(model: ir.Model) -> ir.Model:
    """`model` with fp16 computation; operators that fp16 harms are left in fp32 by the converter's own list."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        # Weights below fp16's smallest number become that number; the validation says whether this matters.
        warnings.filterwarnings("ignore", message=".*(truncated|float16).*")
        half = ir.from_proto(convert_float_to_float16(ir.to_proto(model), keep_io_types=True))
    half.graph.sort()  # The converter appends its casts at the end.
    assert isinstance(half, ir.Model)
    return half
