"""`edgekit search` and `edgekit worker`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekit.cli import completing, show
from edgekit.cli.behaviour import Confidence, MaxChurn, MaxEceRise, MaxWorstClassDrop, gates_of
from edgekit.cli.compressing import BUDGET_MISSED
from edgekit.cli.kinds import Costs, Device, DevicePython, OnDevice, kind_of
from edgekit.cli.options import (
    HOW,
    LIMITS,
    RUNS,
    AsJson,
    Augment,
    LearningRate,
    OptimizerName,
    PlacementBy,
    Ranges,
    Threads,
)
from edgekit.units import format_bytes, format_duration, format_latency, parse_duration_s

if TYPE_CHECKING:
    from edgekit.search import Front, SearchSettings
    from edgekit.workload import WorkloadConfig

GIVEN = "What may be given beside the builder"
WORKERS = "Workers"


def search(
    config: WorkloadConfig,
    trials: Annotated[int, typer.Option(min=1, help="Networks to try.", rich_help_panel=LIMITS)] = 32,
    time: Annotated[
        str,
        typer.Option(
            help="How long it may take: 90s, 30m, 2h; 40 % of it are kept for the full training of the finalists.",
            rich_help_panel=LIMITS,
        ),
    ] = "30m",
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            help="Slower networks are given up before any training; latency of one sample, of the int8 file.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Points of the metric that the chosen network may lose against the reference: the teacher, or else "
            "the builder's default network after the same training. An int8 file that loses more, of a network that "
            "does not in fp32, has its rounding learned and its most sensitive layers go back to fp32.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    max_churn: MaxChurn = None,
    max_worst_class_drop: MaxWorstClassDrop = None,
    max_ece_rise: MaxEceRise = None,
    confidence: Confidence = 0.7,
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A trained model to distill from (net.py:model); drops refer to it.",
            autocompletion=completing.functions,
            rich_help_panel=GIVEN,
        ),
    ] = None,
    from_weights: Annotated[
        str | None,
        typer.Option(
            help="A trained model whose weights networks start from, where names agree and shapes allow (narrower "
            "layers take the first channels).",
            autocompletion=completing.functions,
            rich_help_panel=GIVEN,
        ),
    ] = None,
    latency: Annotated[
        str | None,
        typer.Option(
            help="A function (file.py:function) that predicts the latency in ms of a network, instead of measuring it "
            "here or of --costs.",
            autocompletion=completing.functions,
            rich_help_panel=GIVEN,
        ),
    ] = None,
    aims: Annotated[
        str,
        typer.Option(
            help="What is to be small: latency,drop or latency,drop,size for a front; drop alone for the most accurate "
            "network under --max-latency-ms.",
            rich_help_panel=HOW,
        ),
    ] = "latency,drop",
    sampler: Annotated[
        Literal["auto", "gp", "tpe", "nsga2", "random"],
        typer.Option(
            help="What proposes networks. auto: NSGA-II for a front; for one aim a Gaussian process up to 100 trials, "
            "TPE up to 1,000, then NSGA-II.",
            rich_help_panel=HOW,
        ),
    ] = "auto",
    short_epochs: Annotated[float, typer.Option(help="Epochs of the first short training.", rich_help_panel=HOW)] = 1.0,
    rungs: Annotated[
        int,
        typer.Option(min=1, help="Short trainings: of each, the best 1/FACTOR go on to the next.", rich_help_panel=HOW),
    ] = 2,
    factor: Annotated[
        int, typer.Option(min=2, help="Each rung trains so many times as long as the one before.", rich_help_panel=HOW)
    ] = 3,
    epochs: Annotated[float, typer.Option(help="Most epochs of a finalist's full training.", rich_help_panel=HOW)] = 12,
    finalists: Annotated[
        int, typer.Option(min=1, help="Networks of the front that are trained in full.", rich_help_panel=HOW)
    ] = 4,
    learning_rate: LearningRate = None,
    optimizer: OptimizerName = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in a step.", rich_help_panel=HOW)] = 128,
    augment: Augment = "auto",
    device: Device = None,
    threads: Threads = 1,
    costs: Costs = None,
    on: OnDevice = None,
    python: DevicePython = "python3",
    ranges: Ranges = "mse",
    placement: PlacementBy = "measured",
    workers: Annotated[
        int, typer.Option(min=1, help="Processes on this host that run trials.", rich_help_panel=WORKERS)
    ] = 1,
    ranks: Annotated[
        int,
        typer.Option(
            min=1, help="Processes of torchrun (one for each GPU) that share each training.", rich_help_panel=WORKERS
        ),
    ] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Where trials are kept: postgresql://user@host/database for workers on several hosts (edgekit "
            "worker); a journal in the run's folder without it.",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the run. The same command in the same folder goes on where it stopped, also with more "
            "trials or time.  \\[default: edgekit-runs/NAME]",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Search the choices of a network's builder for those that are fastest, most accurate and smallest.

    MODEL is a function that makes an untrained network and asks edgekit.choice(name, options) wherever the search may
    decide. Networks that are too slow are given up before any training, most others after a short one; the finalists
    are trained in full, quantized and measured. Any point of the front can be bundled later: edgekit bundle --point 2.

    Example: edgekit search edgekit.demo.choices:network --train edgekit.demo.digits:train_data
    --test edgekit.demo.digits:test_data --trials 8 --time 2m --batch-size 32
    """
    from edgekit.search import SearchSettings
    from edgekit.search import search as run

    folder = out or RUNS / (config.name or config.model.rpartition(":")[2])
    if on is not None and costs is None:
        costs = folder / "costs.json"
    settings = SearchSettings(
        trials=trials,
        time_s=parse_duration_s(time, "--time"),
        aims=tuple(part.strip() for part in aims.split(",") if part.strip()),
        max_latency_ms=max_latency_ms,
        max_drop=max_drop,
        gates=gates_of(max_churn, max_worst_class_drop, max_ece_rise, None),
        confidence=confidence,
        teacher=teacher,
        weights=from_weights,
        latency=latency,
        costs=None if costs is None else str(costs.resolve()),
        host=on,
        python=python,
        sampler=sampler,
        short_epochs=short_epochs,
        rungs=rungs,
        factor=factor,
        epochs=epochs,
        finalists=finalists,
        learning_rate=learning_rate,
        optimizer=optimizer,
        batch_size=batch_size,
        augment=augment,
        ranks=ranks,
        target=kind_of(device, costs=costs, host=on, python=python, threads=threads),
        threads=threads,
        ranges=ranges,
        placement=placement,
        seed=config.seed,
    )
    with show.progress(quiet=json) as progress:
        front = run(config, settings, out=folder, storage=storage, workers=workers, progress=progress)
    _end(front, settings, folder, json=json)


def worker(
    study: Annotated[
        str, typer.Option(help="Where the search keeps its trials: postgresql://user@host/database, or its journal.")
    ],
    run: Annotated[
        Path,
        typer.Option(
            help="Folder for what is made: that of the search where it is shared, else one of this host's own."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the study, where the storage has several.  \\[default: the only one]")
    ] = None,
    json: AsJson = False,
) -> None:
    """Work for a search that was begun elsewhere: take trials until it needs no more.

    A worker keeps no state; kill it whenever you like, another one runs its trial again. The builder's file and the
    data must be where they are for the search.

    Example: edgekit worker --study postgresql://edgekit@db.example/searches --run /tmp/edgekit
    """
    from edgekit.search import serve

    with show.progress(quiet=json) as progress:
        count = serve(study, run, name=name, progress=progress)
    if json:
        show.data({"trials": count})
    else:
        show.out.print(f"ran {count} trials; the search needs no more", markup=False)


def _end(front: Front, settings: SearchSettings, folder: Path, *, json: bool) -> None:
    from edgekit.profiling import KNOWN_ERROR
    from edgekit.report import scatter
    from edgekit.search.record import AXES, FRONT, PICTURE

    chosen = front.chosen(max_latency_ms=settings.max_latency_ms, max_drop=settings.max_drop, margin=settings.margin)
    if json:
        show.data({**front.to_dict(), "chosen": chosen})
    else:
        for line in scatter(front.marks, x=AXES[0], y=AXES[1]):
            show.out.print(line, markup=False)
        show.table(f"{front.name}: front, test split, ONNX Runtime", _headers(front), _rows(front, chosen))
        if device := _device(front):
            show.out.print(
                f"latency: predicted for {', '.join(device)} by what pieces cost there; on the reference networks "
                f"such predictions were off by {KNOWN_ERROR['int8'].median:.0%} (median). Ratios are measured here.",
                markup=False,
            )
        for number, each in enumerate(front.members, 1):
            if each.rungs:
                show.out.print(f"point {number} climbed the quantization ladder: {_climbed(each.rungs)}", markup=False)
            if each.broken:
                show.out.print(f"point {number} breaks a gate: {'; '.join(each.broken)}", markup=False)
        show.facts(
            _verdict(chosen, max_drop=settings.max_drop),
            {
                "front": folder / FRONT,
                "picture": folder / PICTURE,
                "trials": _counts(front),
                "time": format_duration(front.details["seconds"]),
            },
        )
        show.out.print(f"next\n  edgekit bundle --run {folder} --point {chosen or 1}", markup=False)
    if not chosen:
        raise typer.Exit(BUDGET_MISSED)


def _device(front: Front) -> Sequence[str]:
    """What latencies are predicted for; empty where they were measured here."""
    return front.details.get("device") or ()


def _headers(front: Front) -> tuple[str, ...]:
    speed = ("latency there", "vs reference here") if _device(front) else ("latency", "vs reference")
    return ("point", "network", *speed, "drop selection", "drop test", "metric", "size", "choices")


def _rows(front: Front, chosen: int | None) -> list[list[str]]:
    rows = []
    for number, each in enumerate(front.members, 1):
        test = each.test
        drop, metric = test["drop"], test["score"]["metric"]
        rows.append([
            f"{number}{' ◀' if number == chosen else ''}",
            each.point.name,
            format_latency(each.point.latency_ms),
            f"{test['ratio']['value']:.2f}×",
            f"{each.point.drop.value:.2f}",
            f"{drop['value']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}]",
            f"{metric['value']:.2f}",
            format_bytes(each.point.size_bytes),
            ", ".join(f"{name} {value}" for name, value in each.choices.items()),
        ])  # fmt: skip
    return rows


def _climbed(rungs: Sequence[Mapping[str, Any]]) -> str:
    """What was kept of a ladder's rungs, with the drop that each led to."""
    kept = [rung for rung in rungs if rung["kept"]]
    return "; ".join(
        f"{rung['name']}{f' ({note})' if (note := rung['note']) else ''}: drop {rung['drop']:.2f}" for rung in kept
    )


def _verdict(chosen: int | None, *, max_drop: float | None) -> str:
    if chosen is None:
        return "no point holds the limits"
    return f"point {chosen} is the {'most accurate' if max_drop is None else 'fastest'} within the limits"


def _counts(front: Front) -> str:
    trials = front.details["trials"]
    states = [trial["state"] for trial in trials]
    same = sum(trial["same_as"] is not None for trial in trials)
    return (
        f"{states.count('complete')} to the last rung, {states.count('pruned')} given up, {same} of all proposed twice"
    )
