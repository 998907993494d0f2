"""What the kinds of device ask of a quantized file, and what this machine can tell of it."""

from __future__ import annotations

from typing import Literal, cast, get_args

from edgekit.device.environment import isa_target

CpuTarget = Literal["x86-vnni", "x86-avx2", "arm64"]
Target = Literal[CpuTarget, "cuda", "tensorrt", "size"]
TARGETS: tuple[Target, ...] = get_args(Target)
WEIGHT_LIMIT = {"x86-vnni": 127, "x86-avx2": 127, "arm64": 127, "cuda": 0, "tensorrt": 127, "size": 128}
"""Largest absolute integer of a weight."""
PAIR_LIMIT = {"x86-avx2": 128}
"""Largest absolute sum of two weights whose products are added in 16 bits, as VPMADDUBSW does: with activations of 255
it stays within 32767."""
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
        return "run here, where VNNI hides what saturates without it: the weights rule that out"
    if target == "x86-vnni" and here in ("x86-avx2", "x86"):
        return "run here without VNNI, where sums of products may saturate: other outputs than on its device"
    if target == "arm64" and here.startswith("x86"):
        return f"kernels read as ARM takes them (session.qdqisint8allowed); {NOT_RUN}"
    return NOT_RUN
