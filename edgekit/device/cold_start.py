"""The process that `edgekit.device.footprint` starts: load a model, run it once, write down what that took.

Usage: python -m edgekit.device.cold_start MODEL FEEDS.npz RESULT.json PROVIDER THREADS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.device.feeds import saved_feeds
from edgekit.device.session import open_session, runtime
from edgekit.errors import EdgekitError


def main(arguments: Sequence[str]) -> None:
    """Write the figures, or the fault, to the file RESULT.json."""
    model, feeds, result, provider, threads = arguments
    try:
        answer = cold_start(Path(model), Path(feeds), provider, int(threads))
    except EdgekitError as error:
        answer = {
            "kind": type(error).__name__,
            "error": error.problem,
            "where": error.where,
            "rule": error.rule,
            "way_out": error.way_out,
        }
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own exceptions have no common base but this one
        answer = {
            "kind": EdgekitError.__name__,
            "error": f"{type(error).__name__}: {error}",
            "where": model,
            "rule": "a model that ONNX Runtime loads and runs with these inputs",
            "way_out": "",
        }
    Path(result).write_text(json.dumps(answer))


def cold_start(model: Path, feeds: Path, provider: str, threads: int) -> dict[str, Any]:
    """The figures of `Footprint`, taken in this process."""
    inputs = dict(saved_feeds(feeds))
    runtime()  # Importing onnxruntime is the program's cost, not the model's.
    base = peak_bytes()
    begin = time.perf_counter_ns()
    session = open_session(model, provider=provider, threads=threads)
    loaded = time.perf_counter_ns()
    session.run(None, inputs)
    ran = time.perf_counter_ns()
    return {
        "load_ms": (loaded - begin) / 1e6,
        "first_ms": (ran - loaded) / 1e6,
        "peak_bytes": peak_bytes(),
        "base_bytes": base,
        "size_bytes": model.stat().st_size,
    }


def peak_bytes() -> int:
    """The most memory this process has held so far.

    Linux's `getrusage` would count what the parent held when it forked; VmHWM begins anew with the program.

    Raises:
        EdgekitError: this system tells neither.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    try:
        import resource
    except ImportError as error:
        raise EdgekitError(
            "this system does not tell a process its peak memory", where=sys.platform, rule="Linux or macOS"
        ) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
