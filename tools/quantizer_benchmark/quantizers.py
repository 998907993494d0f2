"""The quantizers that are compared, each called as its own documentation advises."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from quantizer_benchmark.faults import said
from quantizer_benchmark.inputs import cut

from edgekit.progress import Progress
from edgekit.spec import Feeds, IOSpec

if TYPE_CHECKING:  # It needs torch, and --help need not wait for it.
    from edgekit.quantize.targets import Target

EDGEKIT = "edgekit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a quantizer is given.

    Args:
        model: the fp32 file.
        spec: its inputs and outputs.
        calibration: batches of inputs.
        target: kind of device, for those that ask.
        progress: told by those that tell.
    """

    model: Path
    spec: IOSpec
    calibration: Sequence[Feeds]
    target: Target
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """One way to make an int8 file.

    Args:
        name: of its row.
        made_by: the package.
        how: the call.
        make: writes the file, and says what is worth knowing about it.
        install: what to do where the package is not installed.
    """

    name: str
    made_by: str
    how: str
    make: Callable[[Job, Path], str]
    install: str = ""


class Reader:
    """Batches as ONNX Runtime's calibrator asks for them."""

    def __init__(self, batches: Sequence[Feeds]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch; None after the last."""
        feeds = next(self._rest, None)
        return None if feeds is None else dict(feeds)


def ort_defaults(job: Job, path: Path) -> str:
    """ONNX Runtime's static quantizer as a newcomer calls it."""
    from onnxruntime.quantization import quantize_static

    quantize_static(job.model, path, Reader(job.calibration))
    return ""


def ort_u8s8(job: Job, path: Path) -> str:
    """The static quantizer as its documentation advises for x86."""
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

    with tempfile.TemporaryDirectory(prefix="edgekit-quantizers-") as folder:
        prepared, note = Path(folder) / "prepared.onnx", ""
        try:
            quant_pre_process(job.model, prepared)
        except Exception as error:  # noqa: BLE001 - its symbolic shape inference raises anything
            prepared, note = job.model, f"without quant_pre_process, which failed: {said(error)}"
        quantize_static(
            prepared,
            path,
            Reader(job.calibration),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return note


def ort_dynamic(job: Job, path: Path) -> str:
    """ONNX Runtime's dynamic quantizer with its defaults; it needs no data."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(job.model, path)
    return ""


def nncf_defaults(job: Job, path: Path) -> str:
    """NNCF's post-training quantization with its defaults, on all calibration samples."""
    os.environ.setdefault("NNCF_CI", "1")  # Its import would report to its makers otherwise.
    import nncf
    import onnx

    from edgekit.validate.feeds import fixed_batch

    # One by one, as NNCF's documentation advises: it takes statistics of whole items.
    samples = [one for feeds in job.calibration for one in cut(feeds, fixed_batch(job.spec) or 1)]
    made = nncf.quantize(onnx.load(job.model), nncf.Dataset(samples), subset_size=len(samples))
    onnx.save(made, path)
    return ""


def edgekit_defaults(job: Job, path: Path) -> str:
    """The quantizer of edgekit as `edgekit quantize` calls it."""
    from edgekit.quantize import quantize

    made = quantize(job.model, job.calibration, path, spec=job.spec, target=job.target, progress=job.progress)
    return f"{made.scheme}, {made.int8_nodes} nodes in int8"


STATIC = (
    Quantizer(name="ort-defaults", made_by="onnxruntime", how="quantize_static with its defaults", make=ort_defaults),
    Quantizer(
        name="ort-u8s8",
        made_by="onnxruntime",
        how="quantize_static(per_channel=True, activation_type=QUInt8, weight_type=QInt8) after quant_pre_process",
        make=ort_u8s8,
    ),
)
DYNAMIC = Quantizer(
    name="ort-dynamic", made_by="onnxruntime", how="quantize_dynamic with its defaults", make=ort_dynamic
)
NNCF = Quantizer(
    name="nncf",
    made_by="nncf",
    how="nncf.quantize with its defaults",
    make=nncf_defaults,
    install="pip install nncf in an environment of its own, beside 'edgekit[cpu,compress]'",
)
OWN = Quantizer(name=EDGEKIT, made_by=EDGEKIT, how="edgekit.quantize.quantize with its defaults", make=edgekit_defaults)


def fitting(model: Path) -> list[Quantizer]:
    """The quantizers for this network; edgekit's own is the last."""
    import onnx_ir as ir

    operators = {node.op_type for node in ir.load(model).graph}
    # ConvInteger is slower than fp32 by far: nobody would quantize a convolutional network dynamically.
    dynamic = operators & {"MatMul", "Gemm", "LSTM"} and "Conv" not in operators
    return [*STATIC, *((DYNAMIC,) if dynamic else ()), NNCF, OWN]
