"""`edgekit compress` and `edgekit demo`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from edgekit.cli import show
from edgekit.cli.behaviour import (
    Confidence,
    MaxChurn,
    MaxEceRise,
    MaxRobustnessDrop,
    MaxWorstClassDrop,
    RobustnessTime,
    gates_of,
    robustness_time_s,
    summary,
)
from edgekit.cli.kinds import Also, Costs, Device, DevicePython, OnDevice, kind_of, kinds_in
from edgekit.cli.options import (
    HOW,
    LIMITS,
    RUNS,
    AsJson,
    Augment,
    Importance,
    LearningRate,
    OptimizerName,
    PlacementBy,
    Provider,
    Ranges,
    Threads,
    providers,
)
from edgekit.errors import EdgekitError
from edgekit.report import interval, other_table, read_run, stage_table
from edgekit.units import format_bytes, format_duration, format_latency, parse_duration_s

BUDGET_MISSED = 3

if TYPE_CHECKING:  # They need torch and optuna, and --help need not wait for them.
    from edgekit.search import Front
    from edgekit.workload import WorkloadConfig


def compress(
    config: WorkloadConfig,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Most that the metric may lose, in its points (0.5 is half a percentage point of accuracy).",
            rich_help_panel=LIMITS,
        ),
    ] = 0.5,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Highest median latency of one sample.", rich_help_panel=LIMITS)
    ] = None,
    max_size_mb: Annotated[
        float | None, typer.Option(help="Largest ONNX file, in megabytes (10^6 bytes).", rich_help_panel=LIMITS)
    ] = None,
    max_churn: MaxChurn = None,
    max_worst_class_drop: MaxWorstClassDrop = None,
    max_ece_rise: MaxEceRise = None,
    max_robustness_drop: MaxRobustnessDrop = None,
    confidence: Confidence = 0.7,
    time: Annotated[str, typer.Option(help="How long it may take: 90s, 15m, 1h30m.", rich_help_panel=LIMITS)] = "15m",
    device: Device = None,
    also: Also = None,
    threads: Threads = 1,
    costs: Costs = None,
    on: OnDevice = None,
    python: DevicePython = "python3",
    provider: Provider = "cpu",
    rounds: Annotated[
        int, typer.Option(help="Most rounds of pruning and recovery; 0 only quantizes.", rich_help_panel=HOW)
    ] = 4,
    resolution: Annotated[
        list[int] | None,
        typer.Option(
            metavar="HEIGHT",
            help="Images may be scaled down to this height (in proportion) before the network sees them; part of the "
            "file, so that apps feed what they fed. May be given several times.",
            rich_help_panel=HOW,
        ),
    ] = None,
    epochs: Annotated[
        float, typer.Option(help="Most epochs of one recovery; the time may allow fewer.", rich_help_panel=HOW)
    ] = 12.0,
    learning_rate: LearningRate = None,
    grid: Annotated[
        int | None,
        typer.Option(
            help="Channel counts come out as multiples of this (the device's block by default).", rich_help_panel=HOW
        ),
    ] = None,
    importance: Importance = "taylor",
    ranges: Ranges = "mse",
    placement: PlacementBy = "measured",
    optimizer: OptimizerName = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a step of a recovery.", rich_help_panel=HOW)] = 128,
    augment: Augment = "auto",
    robustness_time: RobustnessTime = "20s",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run. The same command in the same folder goes on where it "
            "stopped.  \\[default: edgekit-runs/NAME]",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Prune, recover, export, quantize, validate and bundle a trained model under a budget.

    Every figure is measured on the real ONNX file in ONNX Runtime; decisions look at the selection split only, the test
    split is scored once at the end. Interrupt it whenever you like: the same command goes on.

    Example: edgekit compress net.py:model --train net.py:train_data --test net.py:test_data --max-drop 0.5 --time 20m
    """
    from edgekit.compress import Budget, Settings
    from edgekit.compress import compress as run
    from edgekit.quantize.targets import CpuTarget
    from edgekit.report.page import write_page
    from edgekit.workload import load_workload

    budget = Budget(
        max_drop=max_drop,
        max_latency_ms=None if max_latency_ms is None else _positive(max_latency_ms, "--max-latency-ms"),
        max_size_bytes=None if max_size_mb is None else round(1e6 * _positive(max_size_mb, "--max-size-mb")),
        gates=gates_of(max_churn, max_worst_class_drop, max_ece_rise, max_robustness_drop),
        time_s=parse_duration_s(time, "--time"),
        confidence=confidence,
    )
    settings = Settings(
        also=() if also is None else kinds_in(also, get_args(CpuTarget), "--also"),
        python=python,
        threads=threads,
        providers=providers(provider),
        seed=config.seed,
        grid=grid,
        importance=importance,
        ranges=ranges,
        placement=placement,
        max_rounds=rounds,
        resolutions=tuple(resolution or ()),
        recovery_epochs=_positive(epochs, "--epochs"),
        learning_rate=None if learning_rate is None else _positive(learning_rate, "--learning-rate"),
        optimizer=optimizer,
        batch_size=batch_size,
        augment=augment,
        robustness_time_s=robustness_time_s(robustness_time),
    )
    with show.progress(quiet=json) as progress:
        workload = load_workload(config)
        folder = out or RUNS / workload.name
        if on is not None:
            costs = costs or folder / "costs.json"
        settings = replace(
            settings,
            target=kind_of(device, costs=costs, host=on, python=python, threads=threads),
            costs=None if costs is None else str(costs),
            host=on,
        )
        report = run(workload, budget, settings, out=folder, progress=progress).to_dict()
    points = _front(report, config)
    points.save(folder)
    write_page(read_run(folder))  # Again: now it knows how to start the run once more.
    _end(report, points, folder, json=json)


def demo(
    time: Annotated[str, typer.Option(help="How long the compression may take.")] = "90s",
    threads: Threads = 1,
    provider: Provider = "cpu",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = RUNS / "demo",
    json: AsJson = False,
) -> None:
    """Train a small residual network on scikit-learn's digits, then compress it: the whole way in about two minutes.

    Needs no network and no data of yours.

    Example: edgekit demo --time 60s
    """
    from edgekit.compress import Budget, Settings
    from edgekit.compress import compress as run
    from edgekit.demo import digits_workload

    budget = Budget(max_drop=1.0, time_s=parse_duration_s(time, "--time"))
    settings = Settings(threads=threads, providers=providers(provider), latency_time_s=8.0, robustness_time_s=8.0)
    with show.progress(quiet=json) as progress:
        workload = digits_workload(out, progress=progress)
        report = run(workload, budget, settings, out=out, progress=progress).to_dict()
    _end(report, None, out, json=json)


def _draw(points: Front, folder: Path) -> None:
    """What else there is to choose from, as the selection split has it."""
    from edgekit.report import scatter

    for line in scatter(points.marks, x="ms", y=f"drop ({points.unit}, selection)"):
        show.out.print(line, markup=False)
    show.table(
        "front: none of these is beaten in latency, drop and size together",
        ("point", "file", "latency", "drop", "size"),
        [
            (
                str(number),
                each.point.name,
                format_latency(each.point.latency_ms),
                interval(each.point.drop.to_dict(), 2),
                format_bytes(each.point.size_bytes),
            )
            for number, each in enumerate(points.members, 1)
        ],
    )
    show.out.print(f"to bundle another one: edgekit bundle --run {shlex.quote(str(folder))} --point N\n", markup=False)


def _positive(value: float, where: str) -> float:
    if not 0 < value < math.inf:
        raise EdgekitError(f"got {value}", where=where, rule="a positive number")
    return value


def _front(report: Mapping[str, Any], config: WorkloadConfig) -> Front:
    """The front of a run with what it takes to bundle any of its points later."""
    from edgekit.search import Front, Member
    from edgekit.search.record import point_from

    members = tuple(map(Member.from_dict, report["front"]))
    names = {each.point.name for each in members}
    return Front(
        name=report["name"],
        metric=report["metric"],
        unit=report["unit"],
        workload=config,
        members=members,
        others=tuple(
            point_from(
                {
                    "name": each["file"],
                    "latency_ms": each["selection_latency_ms"],
                    "drop": each["selection_drop"],
                    "size_bytes": each["size_bytes"],
                }
            )
            for each in report["candidates"]
            if each["file"] not in names
        ),
        reference={"what": "the original, fp32"},
        details={"settings": report["settings"]},
    )


def _end(report: dict[str, Any], points: Front | None, folder: Path, *, json: bool) -> None:
    from edgekit.report.page import PAGE

    if json:
        show.data(report)
    else:
        show.table(f"{report['name']}: test split, ONNX Runtime", *stage_table(report))
        if report["others"]:
            show.table(
                "the same network for other processors: test split, as they compute; not timed", *other_table(report)
            )
        summary(report["behaviour"])
        if points is not None and len(points.members) > 1:
            _draw(points, folder)
        for row in report["providers"]:
            show.out.print(f"{row['provider']}: {row['status']}", markup=False)
        show.facts(
            report["verdict"]["text"],
            {
                "bundle": report["bundle"],
                "report": report["report"],
                "page": str(folder / PAGE),
                "time": format_duration(sum(report["seconds"].values())),
            },
        )
        show.out.print("[bold]next[/bold]")
        for command in report["next_commands"]:
            show.out.print(f"  {command}", markup=False)
    if not report["verdict"]["holds"]:
        raise typer.Exit(BUDGET_MISSED)
