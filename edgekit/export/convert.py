"""The verb: a PyTorch model becomes an fp32 ONNX file that is proved to compute the same."""

from __future__ import annotations

import copy
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit.errors import EdgekitError, ExportError, StoreError
from edgekit.export.counts import mac_count, parameter_count
from edgekit.export.dimensions import Dynamic, open_dimensions, resized, sizes_of
from edgekit.export.exported import Exported
from edgekit.export.exporters import Exporter, quiet, torch_export, torchscript
from edgekit.export.flat import Flat, checked_names, name_inputs, name_outputs
from edgekit.export.naming import rename
from edgekit.export.onnx_file import describe, publish
from edgekit.export.parity import check_parity
from edgekit.export.tidy import tidy
from edgekit.progress import Progress, Step, silent
from edgekit.spec import spec_of
from edgekit.tasks import outputs_of
from edgekit.workload import Batch

OPSET = 20
"""The newest operator set that both exporters write; ONNX Runtime 1.28 and later has fused kernels for all of it."""

OPSETS = (18, 20)

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

EXPORTERS: Mapping[str, Exporter] = {"torch.export": torch_export, "torchscript": torchscript}


def export(
    model: nn.Module,
    example: Batch,
    path: str | Path,
    *,
    dynamic: Dynamic = "batch",
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset: int = OPSET,
    metadata: Mapping[str, str] | None = None,
    exporters: Mapping[str, Exporter] = EXPORTERS,
    progress: Progress = silent,
) -> Exported:
    """Write `model` as fp32 ONNX to `path` and prove that ONNX Runtime computes from it what PyTorch computes.

    The graph is made through `torch.export`, rewritten where that is exact (added zeros, doubled ReLUs, no-ops),
    converted, and tidied (BatchNorm folded, constants folded, recurrent operators kept whole). If this fails, or the
    file disagrees with PyTorch (see `check_parity`), a TorchScript trace is tried and has to pass the same gate. Inputs
    are in the order of `example.leaves()`; values and weights are named after torch's modules.

    Args:
        model: any module; it is copied, and left as it is.
        example: real inputs, at best two samples or more.
        path: the file to write; it appears whole and proved, or not at all.
        dynamic: `batch` leaves the first dimension of every input open, `none` fixes all sizes to the example's, and
            `{"x": {0: "batch", 2: "height", 3: "width"}}` names the open dimensions of `x` one by one.
        input_names: names of the inputs, if those of forward's parameters and of dict keys will not do.
        output_names: names of the outputs, if those of a returned dict or named tuple will not do.
        opset: the version of the ONNX operator set, 18 to 20.
        metadata: written to the file's metadata beside producer and versions.
        exporters: what to try, in this order.
        progress: told after each step.

    Raises:
        ExportError: the example does not fit the model, or no exporter gave a file that passes the gate; the message
            says why for each.
        StoreError: the file cannot be written.

    >>> import tempfile
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = export(net, Batch((torch.randn(2, 4),), {}, None), Path(folder) / "net.onnx")
    >>> print(done.exporter, done.parameters, done.macs, done.spec.outputs[0])
    torch.export 15 12 float32 [batch, 3]
    """
    path = Path(path)
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ExportError(f"got {opset}", where="opset", rule=f"{OPSETS[0]} to {OPSETS[1]}, what both exporters write")
    if not example.leaves() or not len(example):
        raise ExportError("the example holds no samples", where="example", rule="a Batch with at least one sample")
    twin = copy.deepcopy(model).to("cpu", torch.float32).eval()
    # Weights kept channels-last by a training loop would give views of another layout in the exported graph.
    twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # missing from torch's stub
    # Floating-point inputs of another width (bf16 from a training loop) would not meet fp32 weights.
    example = example.to(device="cpu", dtype=torch.float32)
    raw = _called(twin, example)
    tensors = [leaf.detach().contiguous() for leaf in example.leaves()]
    count = len(outputs_of(raw))
    names = checked_names(input_names or name_inputs(twin, example), len(tensors), "input")
    outputs = checked_names(output_names or name_outputs(raw), count, "output", but=names)
    dimensions = open_dimensions(dynamic, names, tensors)
    # torch.export takes a size of one for a constant.
    traced = resized(tensors, dimensions, {name: max(2, size) for name, size in sizes_of(tensors, dimensions).items()})
    known = dict([*twin.named_parameters(), *twin.named_buffers()])
    macs, parameters = mac_count(twin, example), parameter_count(twin)
    flat = Flat(twin, example)
    refused: list[str] = []
    for index, (exporter, convert) in enumerate(exporters.items()):
        progress(Step("exporting", index, len(exporters)))
        try:
            graph = convert(Flat(copy.deepcopy(twin), example), traced, dimensions, opset)
            tidy(graph)
            rename(graph, names, outputs, dimensions, known)
            describe(graph, metadata or {})
            spec = spec_of(graph)
            parity = publish(graph, path, lambda run: check_parity(flat, run, tensors, dimensions))
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - exporters raise whatever they stumble upon; all of it is shown below
            refused.append(f"{exporter}: {_brief(error)}")
            continue
        progress(Step("exporting", len(exporters), len(exporters)))
        return Exported(
            path=path,
            spec=spec,
            opset=opset,
            exporter=exporter,
            parity=parity,
            parameters=parameters,
            macs=macs,
            refused=tuple(refused),
        )
    raise ExportError(
        "\n".join(
            ["no exporter gave an ONNX file that agrees with the PyTorch model", *(f"- {why}" for why in refused)]
        ),
        where=type(model).__name__,
        rule="no control flow that depends on values; sizes come from the inputs",
        way_out="mend what the first reason names; `torch.export.export(model, args)` by itself tells more",
    )


def _called(model: nn.Module, example: Batch) -> Any:
    """What the model returns for the example, or an `ExportError` if it does not take it."""
    try:
        with quiet():
            return example.call(model)
    except EdgekitError:
        raise
    except Exception as error:
        raise ExportError(
            f"the model does not take the example: {_brief(error)}",
            where=type(model).__name__,
            rule="model(*example.args, **example.kwargs) runs in fp32 on the CPU",
            way_out="compare the data's shapes and types with what forward expects",
        ) from error


def _brief(error: Exception) -> str:
    """An error's class and first lines: torch's messages go on for pages, and what happened stands in their cause."""
    if isinstance(error, EdgekitError):
        return str(error).replace("\n", "\n  ")
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    lines = [line.strip() for line in _COLOURS.sub("", str(root)).splitlines() if line.strip()]
    said = [f"{type(root).__name__}: {lines[0] if lines else 'no message'}", *lines[1:3]]
    return "\n    ".join([*said, *_place(root)])


def _place(error: BaseException) -> list[str]:
    """The user's own line in which `error` arose, if it passed through any."""
    here = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and not frame.filename.startswith(("<", here))
    ]
    return [f"at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}"] if frames else []
