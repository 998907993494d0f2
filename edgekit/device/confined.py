"""The process that `edgekit.device.trial` starts: it gives up what it may do, then looks into a model and runs it once.

A request comes in on stdin as JSON; one JSON object goes out on stdout.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.cold_start import peak_bytes
from edgekit.device.feeds import random_feeds, session_spec
from edgekit.device.inspection import inspect
from edgekit.device.manifest import MAX_FILE_BYTES
from edgekit.device.model import load
from edgekit.device.onnx_scan import scan
from edgekit.device.session import open_session, runtime
from edgekit.device.verify import is_bundle
from edgekit.errors import BundleError, EdgekitError

FILES = 64
"""That may be open at a time."""


def confine(memory_bytes: int, time_s: float) -> None:
    """Limit this process for good: address space, processor time, open files; and it can write no file any more.

    What is loaded already is counted in: Python, numpy and ONNX Runtime are not the model's.
    """
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime + time_s)
    wanted = {
        resource.RLIMIT_AS: _address_space() + memory_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        _, hard = resource.getrlimit(kind)
        least = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # The soft limit on time is told by a signal of its own, the hard one looks like any other kill.
        last = least + 1 if kind == resource.RLIMIT_CPU and hard == resource.RLIM_INFINITY else least
        try:
            resource.setrlimit(kind, (least, last))
        except (OSError, ValueError):
            # macOS refuses some values of RLIMIT_AS and keeps none; `missing_limits` says so.
            if kind != resource.RLIMIT_AS or sys.platform == "linux":
                raise


def look(path: Path) -> dict[str, Any]:
    """What is in a bundle or an ONNX file, and what one run of it gave."""
    if is_bundle(path):
        about = inspect(path)
        if not about["whole"]:
            return {"about": about, "outputs": None, "note": "files have changed since the bundle was written"}
        model = load(path)
        return {"about": about, "outputs": _shapes(model.run(model.example())), "note": ""}
    data = _read(path)
    graph = scan(data, path.name)
    try:
        session = open_session(data)
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this one
        raise BundleError(
            f"ONNX Runtime refuses the model: {error}", where=str(path), rule="an ONNX model that ONNX Runtime runs"
        ) from error
    spec = session_spec(session)
    about = {**spec.to_dict(), "size_bytes": len(data), "graph": graph.to_dict()}
    try:
        feeds = random_feeds(spec)
    except EdgekitError as error:
        return {"about": about, "outputs": None, "note": error.problem}
    names = [output.name for output in spec.outputs]
    return {
        "about": about,
        "outputs": _shapes(dict(zip(names, session.run(names, dict(feeds)), strict=True))),
        "note": "",
    }


def main() -> None:
    """Answer one request. What libraries print on stdout goes to stderr: stdout is for the answer."""
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        request = json.load(sys.stdin.buffer)
        warnings.simplefilter("ignore")
        runtime()
        confine(request["memory_bytes"], request["time_s"])
        try:
            answer = {**look(Path(request["path"])), "peak_bytes": peak_bytes()}
        except EdgekitError as error:
            answer = _fault(error.problem, error.where, error.rule, error.way_out)
        except MemoryError:
            answer = _fault(f"needs more than {request['memory_bytes']} bytes", "", "a model inside the limits", "")
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base but this one
            answer = _fault(f"{type(error).__name__}: {error}", "", "a model that loads and runs inside the limits", "")
        answers.write(json.dumps(answer).encode())


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES or not path.is_file():
            raise BundleError(
                f"{size} bytes", where=str(path), rule=f"a regular file of at most {MAX_FILE_BYTES} bytes"
            )
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read: {error.strerror}", where=str(path), rule="a readable file") from error


def _shapes(outputs: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{value.dtype} {list(value.shape)}" for name, value in outputs.items()}


def _address_space() -> int:
    """Bytes of address space in use; where that cannot be read, what Python, numpy and ONNX Runtime take at most."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 4 << 30


def _fault(problem: str, where: str, rule: str, way_out: str) -> dict[str, Any]:
    return {"error": {"problem": problem, "where": where, "rule": rule, "way_out": way_out}}


if __name__ == "__main__":
    main()
