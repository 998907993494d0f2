"""What depends on constants alone, computed ahead of time: weights are found where they are constants."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as passes

FOLDED_ELEMENTS = 1 << 26
"""Constants up to this size are computed."""


def fold_constants(graph: ir.Graph) -> int:
    """Compute nodes that depend on constants alone, such as a transposed weight.

    `edgekit export` has done so before; other files may hold weights in two steps.
    """
    from onnxscript import optimizer

    before, model = len(graph), ir.Model(graph, ir_version=10)
    optimizer.fold_constants(
        model, onnx_shape_inference=False, input_size_limit=FOLDED_ELEMENTS, output_size_limit=FOLDED_ELEMENTS
    )
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return before - len(graph)
