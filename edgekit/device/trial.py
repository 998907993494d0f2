"""A stranger's model, looked into and run once in a process of its own, inside limits.

What a parser or a kernel does wrong then hits that process: it may use so much memory and time and no more, and it can
write no file. It is no prison: code that took over the process can still read what the user can read and open sockets.
Where that matters, run this inside a container or a virtual machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.device import strict_json
from edgekit.device.footprint import child_environment, ending
from edgekit.errors import BundleError, EdgekitError

WORKER = "edgekit.device.confined"
MEMORY_BYTES, TIME_S = 2 << 30, 60.0
WALL = 4.0
"""Seconds on the clock for each second of processor time: a machine may be busy, a process must not sleep for ever."""
START_S = 60.0
KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "HOME")
"""Of the environment: keys and tokens in it are not the model's business."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came out.

    Attributes:
        path: the bundle or ONNX file.
        about: what `edgekit.device.inspect` says of a bundle; of an ONNX file, its graph, inputs, outputs and size.
        outputs: type and shape of each output of one run; None where it was not run.
        note: why it was not run; empty where it was.
        peak_bytes: the most memory that the process held.
        limits: what it was allowed: `memory_bytes` beyond Python, numpy and ONNX Runtime, `time_s` of the processor.
        missing: limits that this system does not know.
    """

    path: str
    about: Mapping[str, Any]
    outputs: Mapping[str, str] | None
    note: str
    peak_bytes: int
    limits: Mapping[str, float]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "about": dict(self.about), "limits": dict(self.limits), "missing": list(self.missing)}


def try_model(path: str | Path, *, memory_bytes: int = MEMORY_BYTES, time_s: float = TIME_S) -> Trial:
    """Parse a bundle or an ONNX file that nobody vouches for, and run it once on made-up inputs, inside limits.

    Args:
        path: a bundle (folder or zip) or an ONNX file.
        memory_bytes: address space beyond what Python, numpy and ONNX Runtime take (RLIMIT_AS).
        time_s: processor time (RLIMIT_CPU); four times that on the clock.

    Raises:
        BundleError: it is refused, needs more than it may have, or brought its process down; the text says which.
        EdgekitError: this system has no limits for processes (Windows), or the limits make no sense.
    """
    if sys.platform == "win32":
        raise EdgekitError(
            "this system has no limits for processes",
            where=sys.platform,
            rule="Linux or macOS",
            way_out="look at the file in a Linux container or virtual machine",
        )
    if memory_bytes < 1 or not time_s >= 1:
        raise EdgekitError(
            f"{memory_bytes} bytes, {time_s} s", where="trial", rule="at least 1 byte, and at least 1 second"
        )
    limits = {"memory_bytes": memory_bytes, "time_s": time_s}
    answer = _answer(json.dumps({"path": str(Path(path).resolve()), **limits}).encode(), str(path), time_s)
    return Trial(
        path=str(path),
        about=answer["about"],
        outputs=answer["outputs"],
        note=answer["note"],
        peak_bytes=answer["peak_bytes"],
        limits=limits,
        missing=missing_limits(sys.platform),
    )


def missing_limits(platform: str) -> tuple[str, ...]:
    """The limits that a system does not keep, though it may take them.

    >>> missing_limits("linux"), missing_limits("darwin")
    ((), ('memory',))
    """
    return () if platform == "linux" else ("memory",)


def _answer(request: bytes, where: str, time_s: float) -> dict[str, Any]:
    """What the process says, which is not to be trusted either: so much of it, as strict JSON."""
    environment = {name: text for name, text in child_environment().items() if name in KEPT}
    late = threading.Event()
    with (
        tempfile.TemporaryDirectory(prefix="edgekit-trial-") as folder,
        subprocess.Popen(  # noqa: S603 - this interpreter and this package
            [sys.executable, "-m", WORKER],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None

        def give_up() -> None:
            late.set()
            child.kill()

        watch = threading.Timer(WALL * time_s + START_S, give_up)
        watch.daemon = True
        watch.start()
        try:
            _send(child.stdin, request)
            said = child.stdout.read(strict_json.MAX_JSON_BYTES + 1)
            child.kill() if len(said) > strict_json.MAX_JSON_BYTES else child.wait()
        finally:
            watch.cancel()
            if child.poll() is None:
                child.kill()
    if late.is_set() or not said:
        problem = f"took more than {time_s:g} s" if late.is_set() or _out_of_time(child.returncode) else ""
        raise BundleError(
            problem or f"the process that tried it {ending(child.returncode)}",
            where=where,
            rule="a model that loads and runs inside the limits",
            way_out="do not trust the file; where it is yours, allow more",
        )
    answer = strict_json.parse(said, f"answer of the process that tried {where}")
    if "error" in answer:
        fault = {key: str(answer["error"].get(key, "")) for key in ("problem", "where", "rule", "way_out")}
        raise BundleError(fault.pop("problem"), **{**fault, "where": fault["where"] or where})
    return answer


def _send(stream: Any, request: bytes) -> None:
    try:
        stream.write(request)
        stream.close()
    except BrokenPipeError:  # It ended before it listened; its ending is what there is to tell.
        return


def _out_of_time(code: int | None) -> bool:
    import signal

    return code is not None and code == -signal.SIGXCPU
