"""One quantizer in a process of its own: what all runners in this folder do alike.

    PYTHONPATH=CHECKOUT PYTHON run_nncf.py JOB.json RESULT.json

A runner imports its tool and nothing of this project but this file, which needs numpy and the part of edgekit that runs
on devices (numpy again). So each tool may live in an environment of its own, with its own versions of everything, and
time and memory are taken in the same way for all: in a fresh process that gets the fp32 file and a folder of batches.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device.cold_start import peak_bytes

Feeds = dict[str, np.ndarray]


class Batches:
    """Calibration batches in a folder, loaded one by one at each pass: nobody starts with all of them in memory."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(folder.glob("*.npz"))

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Feeds]:
        for path in self._files:
            with np.load(path, allow_pickle=False) as arrays:
                yield {str(name): arrays[f"arr_{index}"] for index, name in enumerate(arrays["names"])}


def write_batches(batches: Iterable[Any], folder: Path) -> int:
    """Write batches as `Batches` reads them, and say how many samples they have in all."""
    samples = 0
    for number, feeds in enumerate(batches):
        # Names may hold any character, so they travel beside the arrays: a zip's entries may not.
        names = np.array(list(feeds), dtype=np.str_)
        np.savez(folder / f"{number:06}.npz", *feeds.values(), names=names)
        samples += len(next(iter(feeds.values())))
    return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a quantizer is given.

    Args:
        model: the fp32 file.
        path: the file to write.
        calibration: batches of inputs.
        samples: how many samples they have in all.
        way: the quantizer's name, where one runner knows several.
        target: kind of device, for those that ask.
        spec: inputs and outputs, JSON-ready.
        fixed_batch: the number of samples that the fp32 file takes at once, if that is fixed.
    """

    model: Path
    path: Path
    calibration: Batches
    samples: int
    way: str
    target: str
    spec: dict[str, Any]
    fixed_batch: int | None


Make = Callable[[Job], str]
"""Writes the file, and says what is worth knowing about it."""


def run(load: Callable[[], Make], package: str, distributions: Iterable[str]) -> None:
    """Do the job named on the command line, and write down how it went and what it took.

    Args:
        load: imports the tool.
        package: the module whose absence means that the tool is not installed here.
        distributions: what the versions are told of, beside numpy.
    """
    order, answer = map(Path, sys.argv[1:])
    given = json.loads(order.read_text())
    paths = {name: Path(given.pop(name)) for name in ("model", "path", "calibration")}
    job = Job(model=paths["model"], path=paths["path"], calibration=Batches(paths["calibration"]), **given)
    answer.write_text(json.dumps(_done(load, job, package) | {"versions": _versions([*distributions, "numpy"])}))


def _done(load: Callable[[], Make], job: Job, package: str) -> dict[str, Any]:
    begin = time.perf_counter()
    try:
        make = load()
        imported, imported_bytes = time.perf_counter(), peak_bytes()
        computed = time.process_time()
        note = make(job)
    except Exception as error:  # noqa: BLE001 - other people's quantizers raise anything
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        return {"status": "not installed"} if missing else {"status": "failed", "reason": told(error)}
    return {
        "status": "made",
        "note": note,
        "seconds": time.perf_counter() - imported,
        "cpu_seconds": time.process_time() - computed,
        "import_seconds": imported - begin,
        "peak_bytes": peak_bytes(),
        "imported_bytes": imported_bytes,
    }


def told(error: Exception) -> str:
    """An error as a text; edgekit's own without place and rule."""
    return str(getattr(error, "problem", None) or f"{type(error).__name__}: {error}")


def _versions(distributions: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
