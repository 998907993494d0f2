"""The stages of a run, each kept in the store so that a run which dies goes on from the last one that is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from edgekit.compress.run import Run
from edgekit.compress.settings import Settings
from edgekit.errors import QuantizeError
from edgekit.export import Exported, export
from edgekit.quantize import Quantized, quantize
from edgekit.spec import Feeds, IOSpec
from edgekit.store import file_sha256, write_json
from edgekit.validate import Score, score
from edgekit.workload import Workload, loader

MODEL = "model.onnx"
CALIBRATION_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An ONNX file of the run with what its rows in the report need."""

    stage: str
    path: Path
    spec: IOSpec
    parameters: int
    macs: int
    sha256: str


def exported_file(run: Run, stage: str, model: nn.Module, workload: Workload, key: dict[str, Any]) -> File:
    """Export `model` (or take the export that is there)."""

    def make(folder: Path) -> None:
        exported = export(
            model,
            workload.example(2),
            folder / MODEL,
            metadata={"model": workload.model_reference, "stage": stage},
            progress=run.progress,
        )
        write_json(folder / "exported.json", exported.to_dict())

    folder = run.stage(f"export-{stage}", key, make)
    exported = Exported.from_dict(json.loads((folder / "exported.json").read_text()), folder)
    return File(
        stage=stage,
        path=exported.path,
        spec=exported.spec,
        parameters=exported.parameters,
        macs=exported.macs,
        sha256=file_sha256(exported.path),
    )


def quantized_file(
    run: Run, stage: str, source: File, workload: Workload, *, target: str, ranges: str
) -> tuple[File, dict[str, Any]] | str:
    """Quantize `source` for `target`; or the reason why nothing in it can be."""

    def make(folder: Path) -> None:
        try:
            quantized = quantize(
                source.path,
                list(calibration_feeds(workload, source.spec)),
                folder / MODEL,
                spec=source.spec,
                target=target,
                ranges=ranges,
                progress=run.progress,
            )
        except QuantizeError as error:
            write_json(folder / "refused.json", str(error))
        else:
            write_json(folder / "quantized.json", quantized.to_dict())

    key = {"source": source.sha256, "target": target, "ranges": ranges}
    folder = run.stage(f"quantize-{stage}", key, make)
    if (folder / "refused.json").is_file():
        return str(json.loads((folder / "refused.json").read_text()))
    details: dict[str, Any] = json.loads((folder / "quantized.json").read_text())
    path = folder / MODEL
    return (
        File(
            stage=stage,
            path=path,
            spec=Quantized.from_dict(details, folder).spec,
            parameters=source.parameters,
            macs=source.macs,
            sha256=file_sha256(path),
        ),
        details,
    )


def scored(run: Run, file: File, workload: Workload, split: str, settings: Settings) -> Score:
    """Score a file on `selection` or `test` in ONNX Runtime (or take the score that is there)."""
    data = getattr(workload.splits, split)

    def make(folder: Path) -> None:
        result = score(
            file.path,
            data,
            workload.task,
            spec=file.spec,
            threads=settings.threads,
            progress=run.progress,
        )
        result.save(folder)

    folder = run.stage(f"score-{split}-{file.stage}", {"file": file.sha256, "split": split}, make)
    return Score.load(folder)


def calibration_feeds(workload: Workload, spec: IOSpec, limit: int | None = None) -> Iterator[Feeds]:
    """The calibration split as ONNX Runtime takes it, in batches of 32."""
    model = workload.model()
    data = workload.splits.calibration
    for batch in loader(data, CALIBRATION_BATCH, model=model, limit=limit):
        leaves = batch.leaves()
        yield {
            tensor.name: np.ascontiguousarray(leaf.numpy()) for tensor, leaf in zip(spec.inputs, leaves, strict=True)
        }
