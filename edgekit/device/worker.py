"""The process that a benchmark starts for each candidate: it opens a model, waits at its pipe, and times on request.

Requests come in on stdin, one line of JSON each; an answer is a line of JSON with the length of the bytes that follow
it (nanoseconds, int64). It ends with its stdin, hence with the benchmark, however that ends.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.cold_start import peak_bytes
from edgekit.device.energy import Rapl, rapl
from edgekit.device.feeds import batch_of, random_feeds, resized, saved_feeds, session_spec
from edgekit.device.kernels import read_kernels
from edgekit.device.model import load
from edgekit.device.rounds import timed_loop, warm_up
from edgekit.device.scenarios import Scenario, serve
from edgekit.device.session import open_session, runtime
from edgekit.errors import EdgekitError
from edgekit.spec import Feeds

LEAD_NS = 50_000_000
"""Calls up to this get one before the loop that is not timed: another process had the caches."""
SETTLE_S, SETTLED_NS, UNSETTLED_S = 0.0005, 50_000, 0.05
"""After a loop, threads of a pool go on spinning for a while: the next candidate waits until this process is still."""
PREFIX_RUNS = 3

Request = Mapping[str, Any]


class Opened:
    """A model that is ready: how it is called, and with what."""

    def __init__(self, run: Callable[[], object], feeds: Feeds, note: str = "") -> None:
        self.run, self.feeds, self.note = run, feeds, note


Opener = Callable[[Request], Opened]


def open_model(request: Request) -> Opened:
    """Open an ONNX file or a bundle in ONNX Runtime, with the inputs that the request names, or made-up ones.

    Raises:
        EdgekitError: the file, its inputs or the provider are at fault; ONNX Runtime raises its own besides.
    """
    path, provider, threads = Path(request["path"]), request["provider"], request["threads"]
    note, given = "", None
    if request["kind"] == "bundle":
        model = load(path, provider=provider, threads=threads)
        session, note = model.session, f"variant {model.variant}"
        given = model.example()
    else:
        session = open_session(path, provider=provider, threads=threads)
    feeds = fed(request, lambda batch: random_feeds(session_spec(session), batch) if given is None else given)
    return Opened(lambda: session.run(None, feeds), feeds, note)


def fed(request: Request, otherwise: Callable[[int], Feeds]) -> dict[str, np.ndarray]:
    """The inputs that a request names, or else what `otherwise` makes of a batch size; in the request's batch size."""
    batch = request["batch"]
    feeds = saved_feeds(Path(request["feeds"])) if request["feeds"] else otherwise(batch or 1)
    # A model that is fixed to another size says so when it runs.
    return dict(feeds if batch in (None, batch_of(feeds)) else resized(feeds, batch))


def main(opener: Opener = open_model) -> None:
    """Answer requests until stdin ends. What libraries print on stdout goes to stderr: stdout is for answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the benchmark decides.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        worker = _Worker(opener)
        for line in sys.stdin.buffer:
            payload = b""
            try:
                answer, payload = worker.answer(json.loads(line))
            except EdgekitError as error:
                answer = _fault(type(error).__name__, error.problem, error.where, error.rule, error.way_out)
            except Exception as error:  # noqa: BLE001 - ONNX Runtime's own exceptions have no common base but this one
                said = (str(error).splitlines() or [type(error).__name__])[0]
                answer = _fault("", said, "", "", "")
            answers.write(json.dumps({**answer, "bytes": len(payload)}).encode() + b"\n" + payload)
            answers.flush()


def _fault(kind: str, problem: str, where: str, rule: str, way_out: str) -> dict[str, Any]:
    return {"error": {"kind": kind, "problem": problem, "where": where, "rule": rule, "way_out": way_out}}


class _Worker:
    """The state between requests."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._call: Callable[[], object] = int
        self._threads, self._typical_ns = 1, 0.0
        self._energy: Rapl | None = rapl()

    def answer(self, request: Request) -> tuple[dict[str, Any], bytes]:
        """The answer to a request, and the bytes that follow it."""
        match request["do"]:
            case "open":
                return self._open(request), b""
            case "warm up":
                calls = warm_up(self._call, request["seconds"], time.perf_counter_ns)
                return {"calls": calls}, b""
            case "loop":
                return self._loop(request["count"])
            case "serve":
                return self._serve(np.array(request["arrivals"], np.int64))
            case "memory":
                return {"peak_bytes": peak_bytes()}, b""
            case "profile":
                return _profile(request), b""
            case other:
                raise ValueError(f"unknown request {other!r}")

    def _open(self, request: Request) -> dict[str, Any]:
        runtime()  # Importing onnxruntime is the program's cost, not the model's.
        base, begin = peak_bytes(), time.perf_counter_ns()
        opened = self._opener(request)
        loaded = time.perf_counter_ns()
        opened.run()
        ran = time.perf_counter_ns()
        self._threads = request["threads"]
        runs = Scenario(**request["scenario"]).runs(batch_of(opened.feeds))

        def several() -> None:
            for _ in range(runs):
                opened.run()

        self._call = opened.run if runs == 1 else several
        gc.collect()
        gc.freeze()
        gc.disable()
        return {
            "load_ms": (loaded - begin) / 1e6,
            "first_ms": (ran - loaded) / 1e6,
            "base_bytes": base,
            "batch": batch_of(opened.feeds),
            "note": opened.note,
        }

    def _loop(self, count: int) -> tuple[dict[str, Any], bytes]:
        lead = self._typical_ns < LEAD_NS
        if lead:
            self._call()
        before = self._energy.read() if self._energy else {}
        times = timed_loop(self._call, count, time.perf_counter_ns, lead=False)
        joules = self._energy.joules(before, self._energy.read()) if self._energy else None
        self._typical_ns = float(np.median(times))
        self._settle()
        return {"joules": joules}, times.tobytes()

    def _serve(self, arrivals: np.ndarray) -> tuple[dict[str, Any], bytes]:
        served = serve(self._call, arrivals, clock=time.perf_counter_ns, sleep=time.sleep)
        self._settle()
        return {"asked": served.asked}, np.concatenate([served.latency_ns, served.service_ns]).tobytes()

    def _settle(self) -> None:
        if self._threads == 1:
            return
        begin = time.perf_counter()
        while time.perf_counter() - begin < UNSETTLED_S:
            before = time.process_time_ns()
            time.sleep(SETTLE_S)
            if time.process_time_ns() - before < SETTLED_NS:
                return


def _profile(request: Request) -> dict[str, Any]:
    """Run a model under ONNX Runtime's profiler, in a session of its own."""
    path, provider, threads = Path(request["path"]), request["provider"], request["threads"]
    source: Path | bytes = path
    config: dict[str, str] = {}
    example: Feeds | None = None
    if request["kind"] == "bundle":
        model = load(path, provider=provider, threads=threads)
        source, config = model.opened.read(model.variant.file), dict(model.choice.config)
        provider, example = model.variant.provider, model.example()
    with tempfile.TemporaryDirectory(prefix="edgekit-kernels-") as temporary:
        optimized = Path(request["optimized"]) if request["optimized"] else None
        session = open_session(
            source,
            provider=provider,
            threads=threads,
            config=config,
            optimized_path=optimized,
            profile_prefix=Path(temporary, "profile"),
        )
        feeds = fed(request, lambda batch: random_feeds(session_spec(session), batch) if example is None else example)
        for _ in range(PREFIX_RUNS + request["count"]):
            session.run(None, feeds)
        return read_kernels(Path(session.end_profiling()), skip=PREFIX_RUNS).to_dict()


if __name__ == "__main__":
    main()
