"""What a measurement was taken on: processor, instruction sets, speed right now, and the software's versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

X86_FLAGS = (
    "avx2",
    "f16c",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx_vnni",
    "avx_vnni_int8",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
)
ARM_FLAGS = ("asimd", "asimddp", "i8mm", "bf16", "asimdhp", "sve", "sve2", "sme")
"""The flags that decide which kernels ONNX Runtime takes; asimd is Neon, asimddp its dot product."""

_MAC_ARM = {
    "asimd": "hw.optional.AdvSIMD",
    "asimddp": "hw.optional.arm.FEAT_DotProd",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
    "bf16": "hw.optional.arm.FEAT_BF16",
    "asimdhp": "hw.optional.arm.FEAT_FP16",
    "sme": "hw.optional.arm.FEAT_SME",
}
_MAC_X86 = {"avx2": "hw.optional.avx2_0", "avx512f": "hw.optional.avx512f", "avx512_vnni": "hw.optional.avx512vnni"}
_WINDOWS_X86 = {"avx2": 40, "avx512f": 41}
"""Numbers of IsProcessorFeaturePresent; Windows has none for VNNI."""

VERSIONS = ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "onnx")


def describe() -> dict[str, Any]:
    """This machine as a JSON-ready dict; what cannot be read is None, never an error.

    Keys: `cpu` (model, architecture, cores, flags, governor, frequency_mhz, temperature_c, load_average), `isa_target`,
    `memory_bytes`, `os`, `python`, `versions`, `providers`, `gpus`.
    """
    cpu = {
        "model": cpu_model(),
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "flags": sorted(isa_flags()),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": _frequency_mhz(),
        "temperature_c": _temperature_c(),
        "load_average": _load_average(),
    }
    return {
        "cpu": cpu,
        "isa_target": isa_target(),
        "memory_bytes": _memory_bytes(),
        "os": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions(),
        "providers": _providers(),
        "gpus": gpus(),
    }


def isa_target() -> str:
    """Which int8 file suits this processor: `x86-vnni`, `x86-avx2`, `arm64`; another architecture by its own name."""
    machine = platform.machine().lower()
    if machine in {"arm64", "aarch64"}:
        return "arm64"
    if machine not in {"x86_64", "amd64"}:
        return machine or "unknown"
    flags = isa_flags()
    if flags & {"avx512_vnni", "avx_vnni"}:
        return "x86-vnni"
    return "x86-avx2" if "avx2" in flags else "x86"


def isa_flags() -> frozenset[str]:
    """Which of `X86_FLAGS` or `ARM_FLAGS` this processor has, by Linux's names.

    >>> isa_flags() <= {*X86_FLAGS, *ARM_FLAGS}
    True
    """
    if sys.platform == "darwin":
        return frozenset(
            flag for flag, key in {**_MAC_ARM, **_MAC_X86}.items() if _output("sysctl", "-n", key).strip() == "1"
        )
    if sys.platform == "win32":
        return _windows_flags()
    present = {word for line in _cpuinfo("flags", "Features") for word in line.split()}
    return frozenset(present & {*X86_FLAGS, *ARM_FLAGS})


def cpu_model() -> str:
    """The processor's name as its system tells it."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string").strip() or platform.processor()
    named = _cpuinfo("model name", "Model", "Hardware")
    return named[0] if named else platform.processor() or platform.machine()


def processor() -> str:
    """This processor by name and by what it runs: a virtual one may be called the same with and without VNNI.

    >>> processor().endswith(f"({isa_target()})")
    True
    """
    return processor_in({"cpu": {"model": cpu_model()}, "isa_target": isa_target()})


def processor_in(about: Mapping[str, Any]) -> str:
    """The processor that `describe` has written down, as `processor` names it."""
    return f"{about.get('cpu', {}).get('model')} ({about.get('isa_target')})"


def usable_cores() -> int:
    """How many cores this process may use; a container or an affinity mask may leave it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Installed versions of what matters, read from their metadata; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, version  # It takes longer to import than this whole room.

    found: dict[str, str] = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def gpus() -> list[str]:
    """NVIDIA GPUs by name, driver and memory, as nvidia-smi lists them; empty without nvidia-smi."""
    listed = _output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    return [line.strip() for line in listed.splitlines() if line.strip()]


def _providers() -> list[str]:
    from edgekit.device.session import runtime
    from edgekit.errors import ProviderError

    try:
        return list(runtime().get_available_providers())
    except ProviderError:
        return []


def _cpuinfo(*keys: str) -> list[str]:
    """Values of the first of `keys` that /proc/cpuinfo has; all cores of a processor repeat them."""
    rows = [line.split(":", 1) for line in (_read("/proc/cpuinfo") or "").splitlines() if ":" in line]
    for key in keys:
        values = [value.strip() for name, value in rows if name.strip() == key]
        if values:
            return values
    return []


def _windows_flags() -> frozenset[str]:
    import ctypes

    present = getattr(ctypes, "windll").kernel32.IsProcessorFeaturePresent  # noqa: B009 - the attribute is Windows' only
    return frozenset(flag for flag, number in _WINDOWS_X86.items() if present(number))


def _frequency_mhz() -> float | None:
    khz = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if khz and khz.isdigit():
        return int(khz) / 1e3
    listed = _cpuinfo("cpu MHz")
    try:
        return float(listed[0]) if listed else None
    except ValueError:
        return None


def _temperature_c() -> float | None:
    """The hottest thermal zone."""
    readings = [_read(str(path)) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    values = [int(text) / 1e3 for text in readings if text and text.lstrip("-").isdigit()]
    return max(values, default=None)


def _load_average() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _output(program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - fixed programs with fixed arguments
            [path, *arguments], capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
