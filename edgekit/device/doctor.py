"""What works on this machine, found out by trying, and what to do where it does not."""

from __future__ import annotations

import base64
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from edgekit.device.environment import describe
from edgekit.device.session import PROVIDERS, runtime
from edgekit.errors import ProviderError
from edgekit.units import format_bytes

Status = Literal["ok", "warn", "fault"]

PROBE_MODEL = base64.b64decode(
    "CAgSB2VkZ2VraXQ6fwoRCgF4CgF3EgFtIgZNYXRNdWwKDAoBbRIBeSIEUmVsdRIFcHJvYmUqKwgECAIQASIgAACAPwAAAMAAAAA/AADAPwAAgL8A"
    "AIA+AAAAQAAAgD9CAXdaEwoBeBIOCgwIARIICgIIAQoCCARiEwoBeRIOCgwIARIICgIIAQoCCAJCBAoAEBE="
)
"""An ONNX model y [1, 2] = Relu(x [1, 4] @ w), since a device has no onnx package to make one; a test rebuilds it."""
PROBE_INPUT = np.array([[1.0, -2.0, -1.0, 3.0]], np.float32)
PROBE_OUTPUT = np.array([[7.0, 0.0]], np.float32)

LEAST_FREE_BYTES = 2_000_000_000
LIBRARIES = {
    "torch": "torch",
    "onnx": "onnx",
    "onnx_ir": "onnx-ir",
    "networkx": "networkx",
    "onnxscript": "onnxscript",
    "lightning_fabric": "lightning-fabric",
    "torchmetrics": "torchmetrics",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "rich": "rich",
    "typer": "typer",
}
"""What compressing needs: modules and the distributions that bring them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at: what was found, and what to do about it unless it is ok."""

    name: str
    status: Status
    found: str
    way_out: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


def doctor() -> tuple[Finding, ...]:
    """Examine this machine; nothing is changed, and torch and onnx are looked for without being imported.

    >>> {finding.status for finding in doctor()} <= {"ok", "warn", "fault"}
    True
    """
    installed = _installed()
    findings = [
        Finding(name="Python", status="ok", found=f"{platform.python_version()} at {sys.executable}"),
        Finding(name="numpy", status="ok", found=np.__version__),
        _clash(installed),
        *_runtime(installed),
        *_machine(describe()),
        _libraries(installed, importlib.util.find_spec),
        _pillow(installed),
        _disk(),
    ]
    return tuple(findings)


def _installed() -> dict[str, str]:
    """Versions of all installed distributions by lower-case name."""
    from importlib.metadata import distributions

    rows = ((found.metadata["Name"], found.version) for found in distributions())
    return {name.lower(): version for name, version in rows if name}


def _clash(installed: Mapping[str, str]) -> Finding:
    """All wheels of ONNX Runtime unpack into one folder; the one that came last wins, in part."""
    wheels = sorted(
        name for name in installed if name == "onnxruntime" or name.startswith(("onnxruntime-", "onnxruntime_"))
    )
    builds = [name for name in wheels if name.replace("_", "-") not in {"onnxruntime-extensions", "onnxruntime-genai"}]
    found = ", ".join(f"{name} {installed[name]}" for name in builds) or "none"
    if len(builds) > 1:
        return Finding(
            name="ONNX Runtime wheels",
            status="fault",
            found=found,
            way_out=f"they overwrite each other: pip uninstall -y {' '.join(builds)}, then install exactly one again",
        )
    if not builds:
        return Finding(
            name="ONNX Runtime wheels",
            status="fault",
            found=found,
            way_out="pip install onnxruntime (CPU) or pip install onnxruntime-gpu (CUDA)",
        )
    return Finding(name="ONNX Runtime wheels", status="ok", found=found)


def _runtime(installed: Mapping[str, str]) -> list[Finding]:
    try:
        ort = runtime()
    except ProviderError as error:
        return [Finding(name="onnxruntime", status="fault", found=error.problem, way_out=error.way_out)]
    available = ort.get_available_providers()
    findings = [Finding(name="onnxruntime", status="ok", found=f"{ort.__version__}, imports")]
    findings += [_provider(ort, name) for name in available if name != "AzureExecutionProvider"]
    if "onnxruntime-gpu" in installed and PROVIDERS["cuda"] not in available:
        findings.append(
            Finding(
                name="CUDAExecutionProvider",
                status="fault",
                found="onnxruntime-gpu is installed, but the CUDA provider is not in it",
                way_out="pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu",
            )
        )
    return findings


def _provider(ort: Any, name: str) -> Finding:
    """Run the probe on one provider, with the silent fallback to the CPU forbidden."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if name != PROVIDERS["cpu"]:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    advice = (
        "check the driver (nvidia-smi), CUDA and cuDNN against onnxruntime-gpu's requirements"
        if name in {PROVIDERS["cuda"], PROVIDERS["tensorrt"]}
        else "update onnxruntime"
    )
    try:
        session = ort.InferenceSession(PROBE_MODEL, options, providers=[name])
        (output,) = session.run(None, {"x": PROBE_INPUT})
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base but this one
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Finding(name=name, status="fault", found=f"does not run a model: {lines[0]}", way_out=advice)
    if session.get_providers()[0] != name:
        found = f"replaced by {session.get_providers()[0]}"
        return Finding(name=name, status="fault", found=found, way_out=advice)
    if not np.allclose(output, PROBE_OUTPUT, rtol=1e-3, atol=1e-3):
        found = f"computes {output.tolist()} instead of {PROBE_OUTPUT.tolist()}"
        return Finding(name=name, status="fault", found=found, way_out=advice)
    return Finding(name=name, status="ok", found="runs a model and computes it right")


def _machine(about: Mapping[str, Any]) -> list[Finding]:
    cpu = about["cpu"]
    findings = [
        Finding(name="processor", status="ok", found=f"{cpu['model']}, {cpu['cores']} core(s), {cpu['architecture']}"),
        _int8(about["isa_target"], cpu["flags"]),
    ]
    if cpu["governor"] not in {None, "performance"}:
        findings.append(
            Finding(
                name="frequency governor",
                status="warn",
                found=cpu["governor"],
                way_out="latencies will wander; for measuring: sudo cpupower frequency-set -g performance",
            )
        )
    load = cpu["load_average"]
    if load is not None:
        busy = load[0] > cpu["cores"] / 2
        findings.append(
            Finding(
                name="load",
                status="warn" if busy else "ok",
                found=f"{load[0]:.2f} of {cpu['cores']} core(s) in the last minute",
                way_out="latencies will be too long: stop other work before measuring" if busy else "",
            )
        )
    findings.append(Finding(name="GPU", status="ok", found=", ".join(about["gpus"]) or "no NVIDIA GPU seen"))
    return findings


def _int8(target: str, flags: Collection[str]) -> Finding:
    shown = ", ".join(flags) or "none of those that matter"
    if target == "x86-vnni":
        return Finding(name="int8", status="ok", found=f"fast: VNNI ({shown})")
    if target == "arm64":
        if {"asimddp", "i8mm"} & set(flags):
            return Finding(name="int8", status="ok", found=f"fast: dot product ({shown})")
        return Finding(
            name="int8",
            status="warn",
            found=f"slow: no dot product ({shown})",
            way_out="int8 makes files smaller here, but may not make them faster: measure",
        )
    return Finding(
        name="int8",
        status="warn",
        found=f"no VNNI ({shown})",
        way_out="8-bit weights may overflow 16-bit sums here: what is compressed here sees to that by itself, "
        "elsewhere with --device x86-avx2",
    )


def _libraries(installed: Mapping[str, str], find: Callable[[str], object]) -> Finding:
    have = {name: _found(name, find) for name in LIBRARIES}
    shown = [f"{LIBRARIES[name]} {installed.get(LIBRARIES[name], '')}".strip() for name, there in have.items() if there]
    missing = [LIBRARIES[name] for name, there in have.items() if not there]
    name, way_out = "compressing", "pip install 'edgekit[compress]'"
    if not shown:
        return Finding(name=name, status="ok", found="not installed: a device needs none of it", way_out=way_out)
    if missing:
        return Finding(name=name, status="warn", found=f"missing: {', '.join(missing)}", way_out=way_out)
    return Finding(name=name, status="ok", found=", ".join(shown))


def _pillow(installed: Mapping[str, str]) -> Finding:
    if "pillow" in installed:
        return Finding(name="image files", status="ok", found=f"Pillow {installed['pillow']}")
    found = "no Pillow: image arrays work, image files do not"
    return Finding(name="image files", status="ok", found=found, way_out="pip install 'edgekit[image]'")


def _found(module: str, find: Callable[[str], object]) -> bool:
    try:
        return find(module) is not None
    except (ImportError, ValueError):
        return False


def _disk() -> Finding:
    places = {os.path.realpath(place): place for place in (os.curdir, tempfile.gettempdir())}
    free = {place: shutil.disk_usage(place).free for place in places}
    found = ", ".join(f"{format_bytes(size)} free at {place}" for place, size in free.items())
    if min(free.values()) < LEAST_FREE_BYTES:
        least = format_bytes(LEAST_FREE_BYTES)
        return Finding(name="disk", status="warn", found=found, way_out=f"a run may need {least}: free some space")
    return Finding(name="disk", status="ok", found=found)
