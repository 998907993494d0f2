"""ONNX Runtime's own quantizers: static with its defaults, static as advised for x86, dynamic."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from harness import Feeds, Job, Make, run, told


class Reader:
    """Batches as ONNX Runtime's calibrator asks for them."""

    def __init__(self, batches: Iterable[Feeds]) -> None:
        self._rest = iter(batches)

    def get_next(self) -> Feeds | None:
        """The next batch; None after the last."""
        return next(self._rest, None)


def load() -> Make:
    """Import it."""
    import onnxruntime.quantization  # noqa: F401 - imported here, its time is not counted as the quantizer's

    return lambda job: {"ort-defaults": defaults, "ort-u8s8": u8s8, "ort-dynamic": dynamic}[job.way](job)


def defaults(job: Job) -> str:
    """The static quantizer as a newcomer calls it."""
    from onnxruntime.quantization import quantize_static

    quantize_static(job.model, job.path, Reader(job.calibration))
    return ""


def u8s8(job: Job) -> str:
    """The static quantizer as its documentation advises for x86, with 7-bit weights where there is no VNNI."""
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

    with tempfile.TemporaryDirectory(prefix="edgekit-quantizers-") as folder:
        prepared, note = Path(folder) / "prepared.onnx", ""
        try:
            quant_pre_process(job.model, prepared)
        except Exception as error:  # noqa: BLE001 - its symbolic shape inference raises anything
            prepared, note = job.model, f"without quant_pre_process, which failed: {told(error)}"
        quantize_static(
            prepared,
            job.path,
            Reader(job.calibration),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=job.target == "x86-avx2",
        )
    return note


def dynamic(job: Job) -> str:
    """The dynamic quantizer with its defaults; it needs no data."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(job.model, job.path)
    return ""


if __name__ == "__main__":
    run(load, "onnxruntime", ("onnxruntime", "onnxruntime-gpu", "onnx"))
