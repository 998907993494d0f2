"""The end of a run: the choice, the final measurements on the test split, the bundle and the report."""

from __future__ import annotations

import json
import os
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgekit.bundle import Variant, postprocessing_for, record_golden, write_bundle
from edgekit.compress.budget import Budget
from edgekit.compress.explaining import explanations
from edgekit.compress.operators import operators
from edgekit.compress.others import Other, other_files, tested, variants
from edgekit.compress.rounds import Round
from edgekit.compress.run import Run
from edgekit.compress.settings import Settings
from edgekit.compress.stages import File, quantized_file
from edgekit.device.environment import describe, isa_target
from edgekit.quantize.targets import target_here
from edgekit.report import ProviderRow, Report, StageRow, Verdict, card, facts_of, without_pictures
from edgekit.search import Member, Point, front
from edgekit.stats import Estimate
from edgekit.store import write_json
from edgekit.units import format_bytes, format_latency
from edgekit.validate import Row, Validation, feeds_of, first_feeds, validate
from edgekit.validate.behaviour import Behaviour, Figures, Inputs, Robustness, compare_behaviour, robustness
from edgekit.validate.behaviour.behaviour import NOT_ASKED
from edgekit.workload import Workload, loader

FINAL = "final.json"
RAW = "latency-raw.json"
GOLDEN_SAMPLES = 4
FINAL_SHARE = 0.05
"""Of the time budget, at most, for the final measurement of latency."""
LOOK_SHARE = 0.03
"""Of the time budget, at most, for a look at what nobody has set a limit on: robustness, and explanations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file with what was found before the test split is looked at.

    Args:
        file: the file.
        round: the round that it came from; 0 for the unpruned ones.
        drop: against the original fp32 file on the selection split, in points.
        latency_ms: interleaved with the original fp32 file.
        changes: what gates look at, on the selection split; empty where there are no gates.
    """

    file: File
    round: int
    drop: Estimate
    latency_ms: float
    changes: Figures = field(default_factory=Figures)


def to_come_s(run: Run) -> float:
    """Seconds from the end of a recovery to the end of the run, by what the same steps took for the unpruned files."""
    took = defaultdict(float, run.seconds)
    scored = took["score-fp32"] + took["score-int8"]
    judged = took["export-fp32"] + took["quantize-int8"] + scored + 2 * took["latency-int8"]
    others = len(run.settings.other_targets) * (took["quantize-int8"] + 2 * took["score-int8"])
    measured = 2 * scored + _latency_time_s(run) + _robustness_time_s(run)
    return judged + others + measured + LOOK_SHARE * run.budget.time_s


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
    files = _shown(candidates, chosen)
    source = _float_file(files, chosen)
    final = _final(run, files, chosen.file, other_files(run, files[0], source, chosen.file))
    rows = [_stage_row(file, final["rows"][file.stage], final["device"].get(file.stage)) for file in files]
    half, provider_rows = _providers(run, source)
    row = next(row for row in rows if row.stage == chosen.file.stage)
    broken = budget.broken(drop=row.drop.value, latency_ms=row.latency_on_device_ms, size_bytes=row.size_bytes)
    broken += tuple(final["behaviour_broken"])
    broken += tuple(f"{other['target']}: {what}" for other in final["others"] for what in other.get("broken", ()))
    best = _front(root, candidates, final["rows"])
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
        behaviour=final["behaviour"],
        environment=final["environment"],
        seconds=dict(run.seconds),
        bundle=str(bundle),
        report=str(root / "report.json"),
        next_commands=_next(bundle, root, files, verdict),
        explanations=explained,
        operators=kernels,
        others=final["others"],
    )
    _bundle(run, bundle, chosen, half=half, source=source, report=report)
    write_json(root / RAW, final["raw"])
    return report


def choose(candidates: Sequence[Candidate], budget: Budget) -> Candidate:
    """The fastest file that holds the budget on the selection split with the margin of `Budget.cautious`.

    If none does, the fastest that holds it without a margin; if none does either, the one that breaks it by least. A
    file that is slower than the first one, the fp32 original, is only taken where a limit on size asks for it.
    """
    baseline = candidates[0]
    fast = [c for c in candidates if c is baseline or c.latency_ms < baseline.latency_ms] or [baseline]
    for pool in (fast, candidates) if budget.max_size_bytes is not None else (fast,):
        for cautious in (True, False):
            holding = [c for c in pool if not _broken(c, budget, cautious=cautious)]
            if holding:
                return min(holding, key=lambda c: c.latency_ms)
    return min(fast, key=lambda c: (_excess(c, budget), c.latency_ms))


def _broken(candidate: Candidate, budget: Budget, *, cautious: bool) -> tuple[str, ...]:
    # The original is its own reference: its drop is zero and has no error.
    drop = budget.cautious(candidate.drop) if cautious else candidate.drop.value
    gates = budget.gates.before_the_end.broken(candidate.changes, margin=budget.margin if cautious else 0.0)
    size = candidate.file.path.stat().st_size
    return budget.broken(drop=drop, latency_ms=candidate.latency_ms, size_bytes=size) + gates


def _excess(candidate: Candidate, budget: Budget) -> float:
    """By how much a candidate breaks the budget: the largest share over a limit."""
    size = candidate.file.path.stat().st_size
    shares = [budget.gates.before_the_end.excess(candidate.changes)]
    if budget.max_drop is not None:
        shares.append((candidate.drop.value - budget.max_drop) / max(budget.max_drop, 0.5))
    if budget.max_latency_ms is not None:
        shares.append(candidate.latency_ms / budget.max_latency_ms - 1)
    if budget.max_size_bytes is not None:
        shares.append(size / budget.max_size_bytes - 1)
    return max(shares)


def _front(root: Path, candidates: Sequence[Candidate], tested: Mapping[str, Any]) -> list[Member]:
    """The candidates that no other one beats, by what the selection split and the device say, the fastest first."""
    by_name = {candidate.file.stage: candidate for candidate in candidates}
    points = [
        Point(name=name, latency_ms=c.latency_ms, drop=c.drop, size_bytes=c.file.path.stat().st_size)
        for name, c in by_name.items()
    ]

    def member(point: Point) -> Member:
        candidate = by_name[point.name]
        target = candidate.file.target
        source = f"pruned-{candidate.round}" if candidate.round else "fp32"
        return Member(
            point=point,
            file=os.path.relpath(candidate.file.path, root),
            source=os.path.relpath(by_name[source].file.path, root),
            sha256=candidate.file.sha256,
            precision="fp32" if target == "any" else "int8",
            target=target,
            choices={"round": candidate.round},
            test=tested.get(point.name, {}),
            rungs=candidate.file.details.get("rungs", ()),
        )

    return [member(point) for point in front(points)]


def _shown(candidates: Sequence[Candidate], chosen: Candidate) -> list[File]:
    """The original, its int8 file, and both files of the round that is shown: the chosen one's, else the last."""
    number = chosen.round or max(candidate.round for candidate in candidates)
    return [c.file for c in candidates if c.round in (0, number)]


def _final(run: Run, files: Sequence[File], chosen: File, others: Sequence[Other]) -> dict[str, Any]:
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


def _stage_row(file: File, row: Mapping[str, Any], device: Mapping[str, Any] | None) -> StageRow:
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


def _float_file(files: Sequence[File], chosen: Candidate) -> File:
    """The fp32 file that the chosen one was made from, or is."""
    wanted = f"pruned-{chosen.round}" if chosen.round else "fp32"
    return next(file for file in files if file.stage == wanted)


def _providers(run: Run, source: File) -> tuple[File | None, list[ProviderRow]]:
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


def _next(bundle: Path, root: Path, files: Sequence[File], verdict: Verdict) -> list[str]:
    quoted = shlex.quote(str(bundle))
    commands = [
        f"edgekit inspect {quoted}",
        f"python -m edgekit.device bench {quoted}",
        f"edgekit bench {' '.join(shlex.quote(str(file.path)) for file in files)}",
    ]
    if not verdict.holds:
        commands.insert(0, f"the same command with a longer --time or a larger --max-drop; {root} is gone on from")
    return commands
