"""The quantizers that are compared, each called as its own documentation advises: see its file in runners/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RUNNERS = Path(__file__).resolve().parent / "runners"
EDGEKIT = "edgekit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """One way to make an int8 file.

    Args:
        name: of its row.
        made_by: the package.
        how: the call.
        runner: the script that makes the file in a process of its own.
        install: what to do where the package is not installed.
    """

    name: str
    made_by: str
    how: str
    runner: Path
    install: str = ""


STATIC = (
    Quantizer(
        name="ort-defaults",
        made_by="onnxruntime",
        how="quantize_static with its defaults",
        runner=RUNNERS / "run_onnxruntime.py",
    ),
    Quantizer(
        name="ort-u8s8",
        made_by="onnxruntime",
        how="quantize_static(per_channel=True, activation_type=QUInt8, weight_type=QInt8) after quant_pre_process",
        runner=RUNNERS / "run_onnxruntime.py",
    ),
)
DYNAMIC = Quantizer(
    name="ort-dynamic",
    made_by="onnxruntime",
    how="quantize_dynamic with its defaults",
    runner=RUNNERS / "run_onnxruntime.py",
)
NNCF = Quantizer(
    name="nncf",
    made_by="nncf",
    how="nncf.quantize with its defaults",
    runner=RUNNERS / "run_nncf.py",
    install="pip install nncf onnx onnxruntime in an environment of its own, and name it: --python nncf=ENV/bin/python",
)
AIMET = Quantizer(
    name="aimet",
    made_by="aimet-onnx",
    how="QuantizationSimModel(param_type=int8, activation_type=int8), to_onnx_qdq(prequantize_constants=True)",
    runner=RUNNERS / "run_aimet.py",
    install="pip install aimet-onnx in an environment of its own, and name it: --python aimet=ENV/bin/python",
)
OWN = Quantizer(
    name=EDGEKIT,
    made_by=EDGEKIT,
    how="edgekit.quantize.quantize with its defaults",
    runner=RUNNERS / "run_edgekit.py",
)
ELSEWHERE = (NNCF, AIMET)
"""Those that may live in an environment of their own."""


def fitting(operators: frozenset[str]) -> list[Quantizer]:
    """The quantizers for a network of these operators; edgekit's own is the last."""
    # ConvInteger is slower than fp32 by far: nobody would quantize a convolutional network dynamically.
    dynamic = operators & {"MatMul", "Gemm", "LSTM"} and "Conv" not in operators
    return [*STATIC, *((DYNAMIC,) if dynamic else ()), NNCF, AIMET, OWN]
