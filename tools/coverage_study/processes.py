"""One process for each network, with limits; what it found before it was stopped is kept."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coverage_study.catalogue import Subject

from edgekit.store import write_json

RUNNER = Path(__file__).with_name("torch_pruning_runner.py")
PATIENCE = 12
"""Times the limit of processor time that a process may take by the clock, on a busy machine."""


def run_all(
    subjects: Sequence[Subject], folder: Path, *, jobs: int, seconds: int, memory: int
) -> Iterator[dict[str, Any]]:
    """Study each subject, several at once; yields what is known of one when its process has ended.

    Args:
        subjects: to study.
        folder: one JSON file for each.
        jobs: how many at once.
        seconds: of processor time for each.
        memory: bytes for each.
    """
    # A server that has the packages loaded, and from which each process is forked: loading takes longer than most work.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coverage_study.working"])
    waiting = list(reversed(subjects))
    running: dict[Any, tuple[Subject, float]] = {}
    from coverage_study.working import work

    while waiting or running:
        while waiting and len(running) < jobs:
            subject = waiting.pop()
            process = context.Process(target=work, args=(subject, _path(folder, subject), seconds, memory), daemon=True)
            process.start()
            running[process] = subject, time.monotonic()
        for process, (subject, begin) in list(running.items()):
            process.join(0.2)
            if process.is_alive():
                if time.monotonic() - begin > PATIENCE * seconds:
                    process.kill()
                continue
            del running[process]
            yield _ended(subject, folder, process.exitcode)


def limit(seconds: int, memory: int) -> None:
    """Hold this process to so much processor time and memory."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def _path(folder: Path, subject: Subject) -> Path:
    return folder / f"{subject.key}.json"


def _ended(subject: Subject, folder: Path, code: int | None) -> dict[str, Any]:
    """What the process left, with the step in which it was stopped marked."""
    path = _path(folder, subject)
    record: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"key": subject.key, "stages": {}}
    if not record.get("done"):
        why = _why(code)
        stages = record["stages"]
        open_ones = [name for name, stage in stages.items() if stage["status"] == "running"] or ["build"]
        stages[open_ones[0]] = {"status": "failed", "error": "Stopped", "reason": why, "place": ""}
        record = {"source": subject.source, "name": subject.name, **record, "done": True}
        write_json(path, record)
    return record


def _why(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        known = {"SIGXCPU": "out of processor time", "SIGKILL": "out of time or memory", "SIGSEGV": "crashed (SIGSEGV)"}
        return known.get(name, f"stopped by {name}")
    return f"ended with exit code {code}"


def beside(record: Mapping[str, Any], subject: Subject, python: Path, *, seconds: int, memory: int) -> dict[str, Any]:
    """The same network through Torch-Pruning, which `python` has.

    Args:
        record: what is known of the network.
        subject: the network.
        python: the interpreter of its environment.
        seconds: of processor time.
        memory: bytes.

    Returns:
        The record with what came of it.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-coverage-") as folder:
        answer = Path(folder) / "answer.json"
        options = json.dumps(dict(subject.options))
        command = [str(python), str(RUNNER), subject.source, subject.name, options, str(answer)]
        paths = [str(RUNNER.parents[2]), str(RUNNER.parents[1]), os.environ.get("PYTHONPATH", "")]
        done = subprocess.run(
            ["/bin/sh", "-c", f'ulimit -t {seconds}; ulimit -d {memory // 1024}; exec "$@"', "sh", *command],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.is_file():
            return {**record, "torch-pruning": json.loads(answer.read_text())}
    last = next(iter(done.stderr.strip().splitlines()[-1:]), f"exit code {done.returncode}")
    return {**record, "torch-pruning": {"outcome": "stopped or crashed", "reason": last[:300]}}
