"""`edgekit validate`: the proof, file by file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekit.cli import show
from edgekit.cli.behaviour import (
    MaxChurn,
    MaxEceRise,
    MaxRobustnessDrop,
    MaxWorstClassDrop,
    RobustnessTime,
    behaviours,
    gates_of,
    robustness_time_s,
    summary,
)
from edgekit.cli.compressing import BUDGET_MISSED
from edgekit.cli.onnx_files import named, shared_spec
from edgekit.cli.onnx_jobs import OnnxJob
from edgekit.cli.options import HOW, AsJson, Provider, Threads, providers
from edgekit.errors import EdgekitError
from edgekit.report import interval
from edgekit.units import format_bytes, format_latency, parse_duration_s

if TYPE_CHECKING:  # They need torch and onnxruntime, and --help need not wait for them.
    from edgekit.validate import Validation
    from edgekit.workload import Workload, WorkloadConfig

FOOTPRINT = ("load", "first run", "peak memory", "size", "nodes on")
Split = Annotated[
    Literal["selection", "test", "all-test"],
    typer.Option(help="selection (for decisions), test (once, at the end), or all-test: every test sample."),
]
Time = Annotated[str, typer.Option(help="How long to measure: 10s, 1m.", rich_help_panel=HOW)]


def validate(
    config: WorkloadConfig | OnnxJob,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            help="Beside a model: an ONNX file; may be given several times. The first is the baseline.",
            show_default=False,
        ),
    ] = None,
    provider: Provider = "cpu",
    threads: Threads = 1,
    time: Time = "10s",
    split: Split = "test",
    max_churn: MaxChurn = None,
    max_worst_class_drop: MaxWorstClassDrop = None,
    max_ece_rise: MaxEceRise = None,
    max_robustness_drop: MaxRobustnessDrop = None,
    robustness_time: RobustnessTime = "20s",
    json: AsJson = False,
) -> None:
    """Score real ONNX files and compare them with the first: metric, paired drop, agreement, latency, memory, nodes.

    And what changed besides the mean: every class, answers that broke behind an unchanged accuracy, calibration, and
    what is left under noise, blur, brightness and JPEG. The exit code is 3 if a gate is broken.

    Example: edgekit validate net.py:model --train net.py:train_data --test net.py:test_data -f model.onnx
    -f model.int8.onnx && edgekit validate model.onnx model.int8.onnx --data test.npz
    """
    from edgekit.validate import validate as prove
    from edgekit.validate.behaviour import Inputs
    from edgekit.workload import load_workload

    gates = gates_of(max_churn, max_worst_class_drop, max_ece_rise, max_robustness_drop)
    perturbing_s = robustness_time_s(robustness_time)
    files = config.files if isinstance(config, OnnxJob) else tuple(file or ())
    if gates and len(files) < 2:
        raise EdgekitError(
            "gates, but one file", where="command line", rule="a gate compares a file with the first", way_out="add -f"
        )
    spec = shared_spec(files)
    workload = config.workload(spec) if isinstance(config, OnnxJob) else load_workload(config)
    with show.progress(quiet=json) as progress:
        # Files have no training data: all samples are there to test them.
        data = workload.splits.test if isinstance(config, OnnxJob) else split_of(config, workload, split)
        found = prove(
            named(files),
            data,
            workload.task,
            spec=spec,
            baseline=next(iter(named(files))),
            providers=providers(provider),
            threads=threads,
            time_s=parse_duration_s(time, "--time"),
            seed=config.seed,
            progress=progress,
        )
        inputs = Inputs(data=data, spec=spec, preprocessing=workload.image, seed=config.seed)
        changes = behaviours(
            found,
            named(files),
            workload,
            inputs,
            gates=gates,
            time_s=perturbing_s,
            threads=threads,
            progress=progress,
        )
    if json:
        show.data({**found.to_dict(), "behaviour": changes})
    else:
        _print(found, workload, split, changes)
    if any(not gate["holds"] for each in changes for gate in each["gates"]):
        raise typer.Exit(BUDGET_MISSED)


def _print(found: Validation, workload: Workload, split: str, changes: Sequence[Mapping[str, Any]]) -> None:
    headers = ("file", workload.task.metric, "drop", "agreement %", "p50", "vs first", "verdict", *FOOTPRINT)
    rows = [
        (
            f"{row.file} ({row.provider})",
            interval(row.score.metric.to_dict(), 2),
            interval(row.comparison.drop.to_dict(), 2),
            f"{row.comparison.agreement.value:.2f}",
            format_latency(row.timing.latency.p50.value),
            interval(row.timing.ratio.to_dict(), 2, "×"),
            row.timing.verdict,
            format_latency(row.footprint.load_ms),
            format_latency(row.footprint.first_ms),
            format_bytes(row.footprint.peak_bytes),
            format_bytes(row.footprint.size_bytes),
            _where(row.placement.providers),
        )
        for row in found.rows
    ]
    show.table(f"{workload.name}: {split}", headers, rows)
    for missing in found.unavailable:
        show.out.print(f"{missing.provider}: unavailable: {missing.reason}", markup=False)
    for each in changes:
        summary(each)


def split_of(config: WorkloadConfig, workload: Workload, name: str) -> Any:
    """The part of the data that `Split` names."""
    from edgekit.workload import Answered, parts_of, source_of

    if name != "all-test":
        return getattr(workload.splits, name)
    _, (_, every, _) = parts_of(config, source_of(config))
    return Answered(every, workload.model(), seed=config.seed) if workload.task.target_is_reference else every


def _where(providers_of: Any) -> str:
    return ", ".join(
        f"{provider.removesuffix('ExecutionProvider')} {sum(counts.values())}"
        for provider, counts in providers_of.items()
    )
