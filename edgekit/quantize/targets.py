"""What the kinds of device ask of a quantized file, and what this machine can tell of it."""

from __future__ import annotations

from typing import Literal

from edgekit.device.environment import isa_target

Target = Literal["x86-vnni", "x86-avx2", "arm64", "cuda", "tensorrt", "size"]
TARGETS: tuple[Target, ...] = ("x86-vnni", "x86-avx2", "arm64", "cuda", "tensorrt", "size")
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
NOT_RUN = "not run on such a device"


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
