"""The end of a run: the choice is measured on the test split, bundled and reported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgekit.bundle import Variant, postprocessing_for, record_golden, write_bundle
from edgekit.compress.advice import next_commands
from edgekit.compress.candidates import Candidate, choose, float_file, members, shown
from edgekit.compress.explaining import explanations
from edgekit.compress.measuring import LOOK_SHARE, on_test, providers, stage_row
from edgekit.compress.operators import operators
from edgekit.compress.others import other_files, variants
from edgekit.compress.rounds import Round
from edgekit.compress.run import Run
from edgekit.compress.stages import File
from edgekit.report import Report, StageRow, Verdict, card, facts_of, without_pictures
from edgekit.store import write_json
from edgekit.units import format_bytes, format_latency
from edgekit.validate import feeds_of
from edgekit.workload import Workload, loader

RAW = "latency-raw.json"
GOLDEN_SAMPLES = 4


def finish(
    run: Run,
    root: Path,
    candidates: Sequence[Candidate],
    *,
    done: Sequence[Round],
    priced: Mapping[str, Any],
    notes: Sequence[str],
) -> Report:
    """Choose on the selection split, measure on the test split, write the bundle, and report."""
    workload, budget, settings = run.workload, run.budget, run.settings
    chosen = choose(candidates, budget)
    files = shown(candidates, chosen)
    source = float_file(files, chosen)
    found = on_test(run, files, chosen.file, other_files(run, files[0], source, chosen.file))
    rows = [stage_row(file, found["rows"][file.stage], found["device"].get(file.stage)) for file in files]
    half, provider_rows = providers(run, source)
    row = next(row for row in rows if row.stage == chosen.file.stage)
    broken = budget.broken(drop=row.drop.value, latency_ms=row.latency_on_device_ms, size_bytes=row.size_bytes)
    broken += tuple(found["behaviour_broken"])
    broken += tuple(f"{other['target']}: {what}" for other in found["others"] for what in other.get("broken", ()))
    best = members(root, candidates, found["rows"])
    explained = explanations(run, files, chosen.file, time_s=LOOK_SHARE * budget.time_s)
    kernels = operators(run, files)
    verdict = Verdict(
        holds=not broken, chosen=row.stage, broken=broken, text=_verdict(row, broken, workload.task.metric)
    )
    bundle = root / f"{workload.name}.edgekit"
    report = Report(
        name=workload.name,
        metric=workload.task.metric,
        unit=workload.task.unit,
        verdict=verdict,
        budget=budget.to_dict(),
        settings=settings.to_dict(),
        stages=rows,
        providers=provider_rows,
        splits=run.splits,
        choices=[priced] if priced else [],
        rounds=[each.to_dict() for each in done],
        candidates=[
            {
                "file": c.file.stage,
                "round": c.round,
                "selection_drop": c.drop.to_dict(),
                "selection_latency_ms": c.latency_ms,
                "selection_changes": c.changes.to_dict(),
                "size_bytes": c.file.path.stat().st_size,
            }
            for c in candidates
        ],
        front=[each.to_dict() for each in best],
        notes=list(notes),
        behaviour=found["behaviour"],
        environment=found["environment"],
        seconds=dict(run.seconds),
        bundle=str(bundle),
        report=str(root / "report.json"),
        next_commands=next_commands(root, bundle, files, verdict=verdict, front=best, budget=budget),
        explanations=explained,
        operators=kernels,
        others=found["others"],
    )
    _bundle(run, bundle, chosen, half=half, source=source, report=report)
    write_json(root / RAW, found["raw"])
    return report


def _bundle(run: Run, folder: Path, chosen: Candidate, *, half: File | None, source: File, report: Report) -> None:
    workload, settings = run.workload, run.settings
    files = variants(chosen.file, report.others, source)
    if half is not None:
        files["cuda-fp16"] = Variant(path=half.path, provider="cuda", precision="fp16", target="cuda")
    batches = loader(workload.splits.selection, 1, model=workload.model(), seed=settings.seed, limit=GOLDEN_SAMPLES)
    row = report.row(chosen.file.stage)
    decisions: list[str] = next((each["decisions"] for each in report.rounds if each["round"] == chosen.round), [])
    write_bundle(
        folder,
        name=workload.name,
        variants=files,
        spec=chosen.file.spec,
        preprocessing=workload.preprocessing,
        labels=workload.labels,
        postprocessing=workload.postprocessing
        or postprocessing_for(workload.task.name, chosen.file.spec, workload.labels),
        metrics={
            "name": report.metric,
            "unit": report.unit,
            "test": asdict(row.metric),
            "drop": asdict(row.drop),
            "latency_ms": asdict(row.latency),
            "ratio_to_fp32": asdict(row.ratio_to_fp32),
            "threads": settings.threads,
            "cpu": report.environment["before"].get("cpu"),
        },
        provenance={
            "model": workload.model_reference,
            "splits": dict(report.splits),
            "file_sha256": chosen.file.sha256,
            "pruned": decisions,
        },
        golden=record_golden(source.path, [feeds_of(batch, chosen.file.spec) for batch in batches]),
        files={
            **workload.processing_files,
            "edgekit/report.json": json.dumps(without_pictures(report.to_dict()), indent=2).encode(),
        },
        readme=lambda about: card(report.to_dict(), facts_of(_about(workload)), about),
    )


def _about(workload: Workload) -> dict[str, Any]:
    """What a model card says of a workload."""
    return {
        "model": workload.model_reference,
        "task": workload.task.name,
        "mean": None if workload.image is None else workload.image.mean,
        "test": workload.splits.sources.get("test"),
    }


def _verdict(row: StageRow, broken: Sequence[str], metric: str) -> str:
    figures = (
        f"{row.stage}: {row.ratio_to_fp32.value:.2f}× as fast as fp32 ONNX, {format_latency(row.latency.value)}, "
        f"{format_bytes(row.size_bytes)}, {metric} {row.metric.value:.2f} (drop {row.drop.value:.2f})"
        f"{_on_device(row)}"
    )
    return f"budget missed ({'; '.join(broken)}); closest is {figures}" if broken else f"budget holds with {figures}"


def _on_device(row: StageRow) -> str:
    if row.device is None:
        return ""
    error = f"predictions are off by {row.device['known_median_error']:.0%} in the median"
    return f"; on the device {format_latency(row.latency_on_device_ms)} predicted ({error})"
