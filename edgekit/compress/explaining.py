"""Whether the chosen file is right for the same reasons as the original: a look at a few samples, in bounded time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.compress.run import Run
from edgekit.compress.stages import File
from edgekit.errors import DataError
from edgekit.explain import draw, drift, grid_for, kind_of, panels
from edgekit.store import write_json

SAMPLES, PANELS, MOST_S = 64, 6, 15.0
LONGEST = 128
"""Sequences that are longer are not occluded here: each step would be a run of the network."""
EXPLANATIONS = "explanations.json"


def explanations(run: Run, files: Sequence[File], chosen: File, *, time_s: float) -> dict[str, Any]:
    """Explanation drift of the chosen file, and of the original's int8 twin, against the original, the first file.

    For at most about `time_s`, on the test split, beside the final measurements; no decision looks at it.
    `edgekit.explain` documents the shape.
    """
    original = files[0]
    compared = {file.stage: file for file in files if file.stage in {original.stage, "int8", chosen.stage}}

    def make(folder: Path) -> None:
        write_json(folder / EXPLANATIONS, _explanations(run, compared, original, chosen, min(time_s, MOST_S)))

    key = {"files": [file.sha256 for file in compared.values()], "chosen": chosen.sha256}
    folder = run.stage("explain", key, make)
    found: dict[str, Any] = json.loads((folder / EXPLANATIONS).read_text())
    return found


def _explanations(run: Run, compared: dict[str, File], original: File, chosen: File, time_s: float) -> dict[str, Any]:
    workload, settings = run.workload, run.settings
    if workload.task.name != "classification":
        return {"notes": [f"not compared: the task is {workload.task.name}, and only classes are explained here"]}
    if chosen.stage == original.stage:
        return {"notes": ["not compared: the original itself was chosen"]}
    samples = draw(workload.splits.test, original.spec, SAMPLES, signature=run.model, seed=settings.seed)
    first = samples[0].feeds[original.spec.inputs[0].name]
    try:
        kind = kind_of(original.spec.inputs[0], first.ndim)
        grid = grid_for(kind, first.shape)
        if kind != "image" and max(grid.sizes) > LONGEST:
            length = f"{max(grid.sizes)} {kind}, and at most {LONGEST} are covered one by one here"
            return {"notes": [f"not compared: an input has {length} (`edgekit explain` takes any length)"]}
        found = drift(
            {stage: file.path for stage, file in compared.items()},
            samples,
            workload.task,
            spec=original.spec,
            # Windows side by side: a quarter of the runs, for a first look.
            stride=min(grid.window) if kind == "image" else None,
            time_s=time_s,
            threads=settings.threads,
            seed=settings.seed,
            progress=run.progress,
        )
    except DataError as error:
        return {"notes": [f"not compared: {error.problem}; {error.rule}"]}
    pictures = panels(found, chosen.stage, labels=workload.labels, preprocessing=workload.image, count=PANELS)
    return {**found.to_dict(), "panels": pictures}
