"""A candidate in a process of its own, seen from the benchmark: a `Timer` whose calls run elsewhere.

A process that dies, as ONNX Runtime does on some files, takes nothing with it: its candidate is lost, with
the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgekit.device.footprint import child_environment, ending, last_line
from edgekit.device.rounds import LostError
from edgekit.device.scenarios import Served

WORKER = "edgekit.device.worker"
TIMEOUT_S = 600.0
PROCESSOR_FIELD = 36
"""Of /proc/PID/stat, behind the program's name: field 39 of proc(5)."""


class Process:
    """A worker process; it starts at once, and `ask` waits for its answers.

    Args:
        about: the candidate's name, for errors.
        module: what the process runs; see `edgekit.device.worker`.
        timeout_s: an answer that takes longer is none.

    Attributes:
        joules: what each loop took so far, where the processor tells.
    """

    def __init__(self, about: str, *, module: str = WORKER, timeout_s: float = TIMEOUT_S) -> None:
        self.about, self.timeout_s = about, timeout_s
        self.joules: list[float] = []
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._late = False
        self._child = subprocess.Popen(  # noqa: S603 - this interpreter and this package
            [sys.executable, "-m", module],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The answer to a request, and the bytes that came with it.

        Raises:
            LostError: the process ended, took too long, or says that it cannot; the text is its own.
        """
        watch = threading.Timer(self.timeout_s, self._give_up)
        watch.daemon = True
        watch.start()
        try:
            answer, payload = self._converse(json.dumps(request).encode() + b"\n")
        except (OSError, ValueError, EOFError):
            raise self._ended() from None
        finally:
            watch.cancel()
        if "error" in answer:
            fault = answer["error"]
            raise LostError(
                fault["problem"], where=fault["where"] or self.about, rule=fault["rule"], way_out=fault["way_out"]
            )
        return answer, payload

    def warm_up(self, warmup_s: float) -> int:
        """See `edgekit.device.rounds.Timer`."""
        return int(self.ask({"do": "warm up", "seconds": warmup_s})[0]["calls"])

    def loop(self, count: int) -> np.ndarray:
        """See `edgekit.device.rounds.Timer`."""
        answer, payload = self.ask({"do": "loop", "count": count})
        if answer["joules"] is not None:
            self.joules.append(answer["joules"])
        return np.frombuffer(payload, np.int64)

    def core(self) -> int | None:
        """The core that its main thread ran on last; None where the system does not tell."""
        try:
            # Names of programs may hold blanks and parentheses; fields are counted from behind the last of these.
            fields = Path("/proc", str(self._child.pid), "stat").read_text().rpartition(")")[2].split()
            return int(fields[PROCESSOR_FIELD])
        except (OSError, ValueError, IndexError):
            return None

    def stay_on(self, core: int) -> None:
        """Let its main thread run on this core alone, where the system allows that."""
        if hasattr(os, "sched_setaffinity"):
            with suppress(OSError):
                os.sched_setaffinity(self._child.pid, {core})

    def serve(self, arrivals: np.ndarray) -> Served:
        """`edgekit.device.scenarios.serve` over there."""
        answer, payload = self.ask({"do": "serve", "arrivals": arrivals.tolist()})
        latency, service = np.frombuffer(payload, np.int64).reshape(2, -1)
        return Served(latency_ns=latency, service_ns=service, asked=answer["asked"])

    def close(self) -> None:
        """End the process, now if need be."""
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # What was written last cannot be flushed to a process that is gone.
                    continue
        try:
            self._child.wait(2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._said.close()

    def _converse(self, line: bytes) -> tuple[dict[str, Any], bytes]:
        to, back = self._child.stdin, self._child.stdout
        assert to is not None
        assert back is not None
        to.write(line)
        to.flush()
        answer: dict[str, Any] = json.loads(back.readline())
        payload = back.read(answer["bytes"])
        if len(payload) != answer["bytes"]:
            raise EOFError
        return answer, payload

    def _give_up(self) -> None:
        self._late = True
        self._child.kill()

    def _ended(self) -> LostError:
        if self._late:
            return LostError(f"no answer within {self.timeout_s:g} s", where=self.about, rule="a run that ends")
        code = self._child.wait()
        self._said.seek(0)
        said = last_line(self._said.read().decode(errors="replace"))
        return LostError(
            f"the process that ran it {ending(code)}",
            where=self.about,
            rule="a model that this ONNX Runtime runs",
            way_out=said or "look for the out-of-memory killer in the system's log",
        )
