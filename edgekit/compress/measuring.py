"""The end of a run: the measurements on the test split, which nothing has looked at before."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.compress.others import Other, tested
from edgekit.compress.run import Run
from edgekit.compress.settings import Settings
from edgekit.compress.stages import File, quantized_file
from edgekit.device.environment import describe, isa_target
from edgekit.quantize.targets import target_here
from edgekit.report import ProviderRow, StageRow
from edgekit.stats import Estimate
from edgekit.store import write_json
from edgekit.validate import Row, Validation, first_feeds, validate
from edgekit.validate.behaviour import Behaviour, Figures, Inputs, Robustness, compare_behaviour, robustness
from edgekit.validate.behaviour.behaviour import NOT_ASKED

FINAL = "final.json"
FINAL_SHARE = 0.05
"""Of the time budget, at most, for the final measurement of latency."""
LOOK_SHARE = 0.03
"""Of the time budget, at most, for a look at what nobody has set a limit on: robustness, and explanations."""


def to_come_s(run: Run) -> float:
    """Seconds from the end of a recovery to the end of the run, by what the same steps took for the unpruned files."""
    took = defaultdict(float, run.seconds)
    scored = took["score-fp32"] + took["score-int8"]
    judged = took["export-fp32"] + took["quantize-int8"] + scored + 2 * took["latency-int8"]
    others = len(run.settings.other_targets) * (took["quantize-int8"] + 2 * took["score-int8"])
    measured = 2 * scored + _latency_time_s(run) + _robustness_time_s(run)
    return judged + others + measured + LOOK_SHARE * run.budget.time_s


def on_test(run: Run, files: Sequence[File], chosen: File, others: Sequence[Other]) -> dict[str, Any]:
    """Accuracy, latency and behaviour of the files that are shown, JSON-ready: a stage of the run.

    Args:
        run: of which this is the end.
        files: the original first.
        chosen: of the files; its behaviour is held against the original's.
        others: what stands in for it on other kinds of CPU.
    """
    workload, settings = run.workload, run.settings

    def make(folder: Path) -> None:
        before = describe()
        found = validate(
            {file.stage: file.path for file in files},
            workload.splits.test,
            workload.task,
            spec=files[0].spec,
            baseline=files[0].stage,
            target=settings.target,
            threads=settings.threads,
            time_s=_latency_time_s(run),
            seed=settings.seed,
            progress=run.progress,
        )
        int8 = next((row for row in found.rows if row.file == "int8"), None)
        changes = _behaviour(run, files[0], chosen, found)
        figures = Figures.unchanged() if changes is None else changes.figures
        gates = run.budget.gates
        data: dict[str, Any] = {
            "behaviour": {} if changes is None else {**changes.to_dict(), "gates": gates.rows(figures)},
            "behaviour_broken": gates.broken(figures),
            "others": tested(run, others, found.row(files[0].stage).score),
            "rows": {row.file: {**row.to_dict(), "ratio_to_int8": _ratio(row, int8)} for row in found.rows},
            "raw": {row.file: row.timing.latency.to_dict(raw=True) for row in found.rows},
            "device": run.speed.on_device(
                {file.stage: file.path.read_bytes() for file in files},
                first_feeds(workload.splits.selection, files[0].spec),
            ),
            "environment": {"before": before, "after": describe()},
        }
        write_json(folder / FINAL, data)

    key = {
        "files": [file.sha256 for file in files],
        "chosen": chosen.sha256,
        "others": [other.why if other.file is None else other.file.sha256 for other in others],
        "gates": run.budget.gates.to_dict(),
        "time": [_latency_time_s(run), settings.robustness_time_s],
        **run.speed.key,
    }
    folder = run.stage("final", key, make)
    data: dict[str, Any] = json.loads((folder / FINAL).read_text())
    return data


def _behaviour(run: Run, original: File, chosen: File, found: Validation) -> Behaviour | None:
    """What compression changed besides the mean, on the test split; None where the original itself was chosen."""
    if chosen.sha256 == original.sha256:
        return None
    workload, settings = run.workload, run.settings
    inputs = Inputs(data=workload.splits.test, spec=original.spec, preprocessing=workload.image, seed=settings.seed)
    suffered: Robustness | str = NOT_ASKED
    if settings.robustness_time_s > 0:
        suffered = robustness(
            original.path,
            chosen.path,
            workload.task,
            inputs,
            time_s=_robustness_time_s(run),
            target=settings.target,
            threads=settings.threads,
            progress=run.progress,
        )
    return compare_behaviour(
        found.row(original.stage).score,
        found.row(chosen.stage).score,
        workload.task,
        names=(original.stage, chosen.stage),
        labels=workload.labels,
        inputs=inputs,
        robustness=suffered,
        seed=settings.seed,
    )


def _latency_time_s(run: Run) -> float:
    return min(run.settings.latency_time_s, FINAL_SHARE * run.budget.time_s)


def _robustness_time_s(run: Run) -> float:
    asked = run.settings.robustness_time_s
    return asked if run.budget.gates.max_robustness_drop is not None else min(asked, LOOK_SHARE * run.budget.time_s)


def _ratio(row: Row, int8: Row | None) -> dict[str, Any] | None:
    return None if int8 is None else row.timing.latency.ratio_to(int8.timing.latency).to_dict()


def stage_row(file: File, row: Mapping[str, Any], device: Mapping[str, Any] | None) -> StageRow:
    """A file's row of the report, of what `on_test` found for it on this machine and for the device."""
    latency = row["latency"]
    ratio_to_int8 = row["ratio_to_int8"]
    return StageRow(
        stage=file.stage,
        file=str(file.path),
        sha256=file.sha256,
        metric=Estimate(**row["score"]["metric"]),
        drop=Estimate(**row["drop"]),
        agreement=Estimate(**row["agreement"]),
        fixed=row["fixed"],
        broken=row["broken"],
        latency=Estimate(**latency["p50_ms"]),
        latency_p90_ms=latency["p90_ms"],
        latency_p99_ms=latency["p99_ms"],
        ratio_to_fp32=Estimate(**row["ratio"]),
        ratio_to_int8=None if ratio_to_int8 is None else Estimate(**ratio_to_int8),
        speed_verdict=row["verdict"],
        size_bytes=file.path.stat().st_size,
        parameters=file.parameters,
        macs=file.macs,
        load_ms=row["load_ms"],
        first_ms=row["first_ms"],
        peak_bytes=row["peak_bytes"],
        nodes=row["nodes"],
        details=file.details,
        device=device,
    )


def providers(run: Run, source: File) -> tuple[File | None, list[ProviderRow]]:
    """What became of each provider; for CUDA an fp16 file of the chosen network, measured where that can be."""
    workload, settings = run.workload, run.settings
    rows = [ProviderRow(provider="cpu", status=measured_on_cpu(settings))]
    if "cuda" not in settings.providers:
        return None, rows
    half = quantized_file(run, f"{source.stage}-fp16", source, target="cuda")
    assert isinstance(half, File), half
    found = validate(
        {source.stage: source.path, half.stage: half.path},
        workload.splits.test,
        workload.task,
        spec=source.spec,
        baseline=source.stage,
        providers=("cuda",),
        threads=settings.threads,
        time_s=_latency_time_s(run),
        seed=settings.seed,
        progress=run.progress,
    )
    rows += [ProviderRow(provider=each.provider, status=f"unavailable: {each.reason}") for each in found.unavailable]
    rows += [
        ProviderRow(provider=row.provider, status=f"measured: {row.file}", detail=row.to_dict()) for row in found.rows
    ]
    return half, rows


def measured_on_cpu(settings: Settings) -> str:
    """Where the CPU's rows are, and whether their latencies are those of the device.

    >>> measured_on_cpu(Settings())
    'measured: the table above'
    """
    elsewhere = settings.costs is None and settings.target != target_here()
    told = f"; latencies are those of this {isa_target()} processor, not of one that {settings.target} files are for"
    return f"measured: the table above{told if elsewhere else ''}"
