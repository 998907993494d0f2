"""The stages of a run, each kept in the store so that a run which dies goes on from the last one that is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from edgekit.compress.improving import Ladder
from edgekit.compress.run import Run
from edgekit.errors import QuantizeError
from edgekit.export import Exported, export
from edgekit.quantize import Quantized, quantize
from edgekit.quantize.targets import Target
from edgekit.spec import IOSpec
from edgekit.store import file_sha256, write_json
from edgekit.validate import Score, calibration_feeds, first_feeds

MODEL = "model.onnx"
SELECTION_TIME_S, SELECTION_SHARE = 6.0, 0.01
"""For the latency of a candidate, and of the time budget at most."""
IMPROVE_SHARE = 0.15
"""Of the time budget, for each climb of the quantization ladder; only an int8 file that breaks the budget takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An ONNX file of the run with what its rows in the report need."""

    stage: str
    path: Path
    spec: IOSpec
    parameters: int
    macs: int
    sha256: str
    details: dict[str, Any]

    @property
    def target(self) -> str:
        """The kind of processor that it is for; `any` for fp32."""
        return str(self.details["plan"]["target"]) if "plan" in self.details else "any"


def exported_file(run: Run, stage: str, model: nn.Module, key: dict[str, Any]) -> File:
    """Export `model`, or take the export that is there."""

    def make(folder: Path) -> None:
        exported = export(
            model,
            run.workload.example(2),
            folder / MODEL,
            dynamic=run.workload.dynamic or "batch",
            metadata={"model": run.workload.name, "stage": stage},
            progress=run.progress,
        )
        write_json(folder / "exported.json", exported.to_dict())

    folder = run.stage(f"export-{stage}", key, make)
    details = json.loads((folder / "exported.json").read_text())
    exported = Exported.from_dict(details, folder)
    return File(
        stage=stage,
        path=exported.path,
        spec=exported.spec,
        parameters=exported.parameters,
        macs=exported.macs,
        sha256=file_sha256(exported.path),
        details=details,
    )


def quantized_file(run: Run, stage: str, source: File, *, target: Target) -> File | str:
    """Quantize `source` for `target`, or take the file that is there; where nothing can be quantized, the reason."""

    def make(folder: Path) -> None:
        try:
            quantized = quantize(
                source.path,
                list(calibration_feeds(run.workload, source.spec)),
                folder / MODEL,
                spec=source.spec,
                target=target,
                ranges=run.settings.ranges,
                placement=run.settings.placed_by,
                threads=run.settings.threads,
                progress=run.progress,
            )
        except QuantizeError as error:
            write_json(folder / "refused.json", str(error))
        else:
            write_json(folder / "quantized.json", quantized.to_dict())

    key = {
        "source": source.sha256,
        "target": target,
        "ranges": run.settings.ranges,
        "placement": run.settings.placed_by,
    }
    folder = run.stage(f"quantize-{stage}", key, make)
    if (folder / "refused.json").is_file():
        return str(json.loads((folder / "refused.json").read_text()))
    details = json.loads((folder / "quantized.json").read_text())
    quantized = Quantized.from_dict(details, folder)
    return File(
        stage=stage,
        path=quantized.path,
        spec=quantized.spec,
        parameters=source.parameters,
        macs=source.macs,
        sha256=file_sha256(quantized.path),
        details=details,
    )


def held_file(run: Run, stage: str, source: File, first: File, reference: Score) -> File:
    """`first`, the int8 file of `source`, or what the ladder makes of it if it breaks drop or gates and there is time.

    `reference` is the score of the fp32 original on the selection split, which decides.
    """
    time_s = IMPROVE_SHARE * run.budget.time_s
    if run.judge.holds(run.judge.judged(selection_score(run, first), reference)) or run.left_s < time_s:
        return first
    return _improved_file(run, stage, source, first, reference, time_s=time_s)


def _improved_file(run: Run, stage: str, source: File, first: File, reference: Score, *, time_s: float) -> File:
    """Climb the quantization ladder from `first` until drop and gates hold the budget."""

    def make(folder: Path) -> None:
        ladder = Ladder(judge=run.judge, reference=reference, trains=True, settings=run.settings, progress=run.progress)
        climbed = ladder.climb(
            Quantized.from_dict(first.details, first.path.parent),
            source.path,
            list(calibration_feeds(run.workload, source.spec)),
            folder,
            time_s=time_s,
            known=selection_score(run, first),
        )
        write_json(folder / "climbed.json", climbed.to_dict())

    key = {"first": first.sha256, "time": round(time_s), "budget": run.budget.to_dict()}
    folder = run.stage(f"improve-{stage}", key, make)
    found = json.loads((folder / "climbed.json").read_text())
    quantized = Quantized.from_dict(found["quantized"], folder)
    return replace(
        first,
        stage=f"{stage}-improved",
        path=quantized.path,
        sha256=file_sha256(quantized.path),
        details={**found["quantized"], "rungs": found["rungs"], "sensitivity": found["sensitivity"]},
    )


def selection_score(run: Run, file: File) -> Score:
    """Score a file on the selection split in ONNX Runtime, or take the score that is there."""

    def make(folder: Path) -> None:
        run.judge.score(file.path, file.spec, target=file.target).save(folder)

    return Score.load(run.stage(f"score-{file.stage}", {"file": file.sha256}, make))


def in_terms_of(first: Mapping[str, float], later: Mapping[str, float], anchor: str, stage: str) -> float:
    """Milliseconds of a file of a later measurement, had the machine been as fast as in the first.

    A shared machine is faster at one time than at another by more than pruning gains; what both measurements timed,
    `anchor`, tells by how much.

    >>> in_terms_of({"int8": 1.0}, {"int8": 2.0, "pruned": 1.5}, "int8", "pruned")
    0.75
    """
    return first[anchor] * later[stage] / later[anchor]


def apart(first: Mapping[str, float], later: Mapping[str, float]) -> float:
    """How many times as much one file of both measurements was slowed down as another, at the most.

    >>> apart({"fp32": 2.0, "int8": 1.0}, {"fp32": 1.0, "int8": 2.0, "pruned": 0.4})
    4.0
    """
    slower = [later[stage] / first[stage] for stage in later if stage in first]
    return max(slower) / min(slower)


def selection_latency(run: Run, files: Sequence[File], attempt: int = 1) -> dict[str, float]:
    """Milliseconds of one sample for each file on the device, or what was found before; the first is the baseline."""

    def make(folder: Path) -> None:
        feeds = first_feeds(run.workload.splits.selection, files[0].spec)
        data = {file.stage: file.path.read_bytes() for file in files}
        time_s = min(SELECTION_TIME_S, SELECTION_SHARE * run.budget.time_s)
        write_json(folder / "latency.json", run.speed.ms(data, feeds, time_s=time_s))

    key = {"files": [file.sha256 for file in files], **run.speed.key} | ({"attempt": attempt} if attempt > 1 else {})
    folder = run.stage(f"latency-{files[-1].stage}", key, make)
    found: dict[str, float] = json.loads((folder / "latency.json").read_text())
    return found
