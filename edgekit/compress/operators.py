"""What operators take before and after: ONNX Runtime's own profiler, in runs of its own, since it slows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.compress.run import Run
from edgekit.compress.stages import File
from edgekit.device.benchmark import profile_kernels
from edgekit.device.candidates import Candidate
from edgekit.device.feeds import save_feeds
from edgekit.device.rounds import LostError
from edgekit.store import write_json
from edgekit.validate import first_feeds

OPERATORS = "operators.json"


def operators(run: Run, files: Sequence[File]) -> dict[str, Any]:
    """For each file its kernels in order and what a run takes under the profiler (`edgekit.device.kernels.Kernels`).

    A file whose process dies is left out.
    """

    def make(folder: Path) -> None:
        inputs = folder / "inputs.npz"
        save_feeds(inputs, first_feeds(run.workload.splits.selection, files[0].spec))
        found = {}
        for file in files:
            candidate = Candidate(name=file.stage, path=str(file.path), threads=run.settings.threads, feeds=inputs)
            try:
                found[file.stage] = profile_kernels(candidate).to_dict()
            except LostError:
                continue
        inputs.unlink()
        write_json(folder / OPERATORS, found)

    key = {"files": [file.sha256 for file in files], "threads": run.settings.threads}
    folder = run.stage("operators", key, make)
    data: dict[str, Any] = json.loads((folder / OPERATORS).read_text())
    return data
