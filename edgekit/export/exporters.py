"""Two ways from a PyTorch model to an ONNX graph; the second is tried when the first one fails or is wrong."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from edgekit.errors import ExportError
from edgekit.export.dimensions import Names
from edgekit.export.exact import simplify
from edgekit.export.lowering import lower
from edgekit.export.recurrent import TRANSLATIONS
from edgekit.export.shortcuts import shortcuts
from edgekit.workload.tracing import whole_layers

Exporter = Callable[[nn.Module, Sequence[Tensor], Names, int], ir.Model]
"""(flat model, example tensors, open dimensions, opset) to a graph with inputs and outputs in the model's order."""


def torch_export(model: nn.Module, tensors: Sequence[Tensor], dimensions: Names, opset: int) -> ir.Model:
    """Through `torch.export`, with the exact rewrites of `simplify` on the way.

    Raises:
        ExportError: the model fixes a dimension that was to stay open.
    """
    shapes = tuple(dict.fromkeys(axes, torch.export.Dim.DYNAMIC) for axes in dimensions)
    with quiet(), whole_layers(), shortcuts():
        try:
            program = torch.export.export(model, tuple(tensors), dynamic_shapes=(shapes,))
        except Exception as error:
            fixed = _fixed_dimension(str(error), dimensions)
            if fixed:
                raise ExportError(
                    f"the model fixes what was to stay open: {fixed}",
                    where="forward",
                    rule="sizes come from the input (x.shape[0], -1), not from a constant",
                    way_out="mend forward, or export for one batch size with dynamic='none'",
                ) from error
            raise
        converted = torch.onnx.export(
            lower(simplify(program)),
            dynamo=True,
            opset_version=opset,
            optimize=True,
            verbose=False,
            custom_translation_table=dict(TRANSLATIONS),
        )
    assert converted is not None
    return converted.model


def torchscript(model: nn.Module, tensors: Sequence[Tensor], dimensions: Names, opset: int) -> ir.Model:
    """Through a TorchScript trace: it records one run, so control flow that depends on data is frozen as it went."""
    buffer = io.BytesIO()
    inputs = [f"input_{index}" for index in range(len(tensors))]
    with quiet():
        torch.onnx.export(
            model,
            tuple(tensors),
            buffer,  # type: ignore[arg-type] # the TorchScript exporter takes a file object, which its stub forgets
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            dynamic_axes={name: axes for name, axes in zip(inputs, dimensions, strict=True) if axes},
        )
    return ir.serde.deserialize_model(onnx.load_from_string(buffer.getvalue()))


@contextmanager
def quiet() -> Iterator[None]:
    """Hush what torch says to its own developers: its deprecations, traces that may be wrong, graphs of failed exports.

    What could really be wrong is found by the parity gate.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    fast = torch.backends.mha.get_fastpath_enabled()
    # PyTorch's fused Transformer layer is one operator that no exporter knows.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad(), redirect_stderr(io.StringIO()):
            for category in (DeprecationWarning, FutureWarning, UserWarning, TracerWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch.backends.mha.set_fastpath_enabled(fast)


def _fixed_dimension(text: str, dimensions: Names) -> str:
    """Which open dimension the model specialised, by torch's message; nothing if that is about something else."""
    found = re.search(r"\[(\d+)\]\.size\(\)\[(\d+)\].*specialized it to be a constant \((\d+)\)", text)
    if found is None:
        return ""
    index, axis, size = map(int, found.groups())
    return f"{dimensions[index].get(axis, 'a size')!r} (axis {axis} of input {index}) is always {size}"
