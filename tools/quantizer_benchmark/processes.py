"""Making int8 files: each quantizer in a fresh process, so that time and memory are taken in the same way for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantizer_benchmark.faults import NoFile, one_line
from quantizer_benchmark.quantizers import Quantizer
from quantizer_benchmark.runners.harness import write_batches

from edgekit.spec import Feeds, IOSpec

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 3600.0
QUIET = {"NNCF_CI": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""Tools that would report to their makers do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every quantizer is given.

    Args:
        model: the fp32 file.
        spec: its inputs and outputs.
        calibration: the folder with batches of inputs.
        samples: how many samples they have in all.
        target: kind of device, for those that ask.
    """

    model: Path
    spec: IOSpec
    calibration: Path
    samples: int
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What it took to make a file.

    Args:
        seconds: from the tool imported to the file written.
        cpu_seconds: what all its threads computed meanwhile; on a busy machine, the fairer figure.
        import_seconds: importing the tool, which includes torch for some.
        process_seconds: the whole process, Python's start included.
        peak_bytes: the most memory it ever held (resident).
        imported_bytes: the most it had held when the tool was imported.
        versions: of the packages in its environment.
        note: what is worth knowing about the file.
    """

    seconds: float
    cpu_seconds: float
    import_seconds: float
    process_seconds: float
    peak_bytes: int
    imported_bytes: int
    versions: Mapping[str, str]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without the note, which belongs to the file."""
        figures = asdict(self)
        del figures["note"]
        return figures


@contextmanager
def job_for(model: Path, spec: IOSpec, calibration: Iterable[Feeds], target: str) -> Iterator[Job]:
    """Lay the calibration data out for all quantizers, in a folder that goes at the end."""
    with tempfile.TemporaryDirectory(prefix="edgekit-calibration-") as folder:
        samples = write_batches(calibration, Path(folder))
        yield Job(model=model.resolve(), spec=spec, calibration=Path(folder), samples=samples, target=target)


def make(quantizer: Quantizer, job: Job, path: Path, python: Path | None = None) -> Process:
    """Make an int8 file.

    Args:
        quantizer: how.
        job: of what.
        path: the file to write.
        python: the interpreter of the tool's environment; by default the one that runs this.

    Raises:
        NoFile: the tool is not installed, or failed, or left no file.
    """
    from edgekit.validate.feeds import fixed_batch

    path = path.resolve()
    with tempfile.TemporaryDirectory(prefix="edgekit-quantizer-") as folder:
        order, answer = Path(folder) / "job.json", Path(folder) / "result.json"
        given = {
            "model": str(job.model),
            "path": str(path),
            "calibration": str(job.calibration),
            "samples": job.samples,
            "way": quantizer.name,
            "target": job.target,
            "spec": job.spec.to_dict(),
            "fixed_batch": fixed_batch(job.spec),
        }
        order.write_text(json.dumps(given))
        begin = time.perf_counter()
        _run([str(python or sys.executable), str(quantizer.runner), str(order), str(answer)], Path(folder))
        process_seconds = time.perf_counter() - begin
        result = json.loads(answer.read_text())
    status = result.pop("status")
    if status == "not installed":
        raise NoFile(status, quantizer.install)
    if status == "failed":
        raise NoFile(status, one_line(result["reason"]))
    if not path.is_file():
        raise NoFile("failed", "it left no file")
    note = one_line(result.pop("note")) if result["note"] else result.pop("note")
    return Process(process_seconds=process_seconds, note=note, **result)


def _run(command: list[str], folder: Path) -> None:
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(ROOT), *(str(Path(each).absolute()) for each in given if each)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,  # Some tools leave files where they run.
            env={**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
            check=False,
        )
    except OSError as error:
        raise NoFile("failed", f"its interpreter does not start: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise NoFile("failed", f"not done within {PATIENCE_S:g} s") from error
    if done.returncode < 0:
        raise NoFile("failed", f"its process was killed by {_name(-done.returncode)}")
    if done.returncode:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), "")
        raise NoFile("failed", one_line(f"its process ended with exit code {done.returncode}: {last}"))


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
