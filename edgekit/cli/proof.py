"""`edgekit validate` and `edgekit bench`: the proof, file by file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from edgekit.cli import show
from edgekit.cli.onnx_files import named, shared_spec
from edgekit.cli.options import HOW, AsJson, Provider, Threads, providers
from edgekit.errors import EdgekitError
from edgekit.report import interval
from edgekit.spec import Feeds, IOSpec
from edgekit.store import write_json
from edgekit.units import format_bytes, format_duration, format_latency, parse_duration_s
from edgekit.workload import Answered, Workload, WorkloadConfig, load_data, load_workload

FOOTPRINT = ("load", "first run", "peak memory", "size", "nodes on")
Split = Annotated[
    Literal["selection", "test", "all-test"],
    typer.Option(help="selection (for decisions), test (once, at the end), or all-test: every test sample."),
]
Time = Annotated[str, typer.Option(help="How long to measure: 10s, 1m.", rich_help_panel=HOW)]


def validate(
    config: WorkloadConfig,
    file: Annotated[
        list[Path],
        typer.Option("--file", "-f", help="An ONNX file; may be given several times. The first is the baseline."),
    ],
    provider: Provider = "cpu",
    threads: Threads = 1,
    time: Time = "10s",
    split: Split = "test",
    json: AsJson = False,
) -> None:
    """Score real ONNX files and compare them with the first: metric, paired drop, agreement, latency, memory, nodes.

    Example: edgekit validate net.py:model --train net.py:train_data --test net.py:test_data -f model.onnx
    -f model.int8.onnx
    """
    from edgekit.validate import validate as prove

    spec = shared_spec(file)
    workload = load_workload(config)
    with show.progress(quiet=json) as progress:
        found = prove(
            named(file),
            split_of(config, workload, split),
            workload.task,
            spec=spec,
            baseline=next(iter(named(file))),
            providers=providers(provider),
            threads=threads,
            time_s=parse_duration_s(time, "--time"),
            seed=config.seed,
            progress=progress,
        )
    if json:
        show.data(found.to_dict())
        return
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


def bench(
    files: Annotated[list[Path], typer.Argument(help="ONNX files; the first is the baseline.")],
    provider: Annotated[str, typer.Option(help="cpu, cuda or tensorrt.", rich_help_panel=HOW)] = "cpu",
    threads: Threads = 1,
    batch: Annotated[int, typer.Option(min=1, help="Samples a run.", rich_help_panel=HOW)] = 1,
    time: Time = "10s",
    data: Annotated[
        Path | None, typer.Option(help="An .npz with the inputs by name; random numbers without it.")
    ] = None,
    raw: Annotated[Path | None, typer.Option(help="Write every sample to this JSON file.")] = None,
    json: AsJson = False,
) -> None:
    """Time ONNX files in interleaved rounds on the same input, with intervals and a verdict.

    All files are measured in one run, in random order, so that a noisy machine treats them alike. A percentile without
    enough samples is not shown.

    Example: edgekit bench model.onnx model.int8.onnx --time 20s
    """
    from edgekit.device import describe
    from edgekit.validate import latency_table

    spec = shared_spec(files, provider)
    feeds = _random_feeds(spec, batch) if data is None else _given_feeds(data)
    spec.check_feeds(feeds)
    with show.progress(quiet=json) as progress:
        timings = latency_table(
            named(files),
            feeds,
            baseline=next(iter(named(files))),
            provider=provider,
            threads=threads,
            time_s=parse_duration_s(time, "--time"),
            progress=progress,
        )
    if raw is not None:
        write_json(raw, {name: timing.latency.to_dict(raw=True) for name, timing in timings.items()})
    if json:
        show.data({"environment": describe(), "files": {name: timing.to_dict() for name, timing in timings.items()}})
        return
    rows = []
    for name, timing in timings.items():
        p90, p99 = timing.latency.p90, timing.latency.p99
        rows.append(
            (
                name,
                f"{format_latency(timing.latency.p50.value)} ",
                "n too small" if p90 is None else format_latency(p90),
                "n too small" if p99 is None else format_latency(p99),
                str(len(timing.latency.samples_ms)),
                interval(timing.ratio.to_dict(), 3, "×"),
                timing.verdict,
            )
        )
    about = describe()
    show.table(
        f"{provider}, {threads} thread{'s' if threads > 1 else ''}, batch {batch}",
        ("file", "p50", "p90", "p99", "n", "vs first [95 %]", "verdict"),
        rows,
    )
    show.out.print(
        f"{about['cpu']['model']}; measured for {format_duration(parse_duration_s(time))} at most",
        markup=False,
    )


def split_of(config: WorkloadConfig, workload: Workload, name: str) -> Any:
    """The part of the data that `Split` names."""
    if name != "all-test":
        return getattr(workload.splits, name)
    image = None if workload.preprocessing is None else workload.preprocessing.apply
    every = load_data(config.resolved(config.test), image=image)
    return Answered(every, workload.model(), seed=config.seed) if workload.task.target_is_reference else every


def _where(providers_of: Any) -> str:
    return ", ".join(
        f"{provider.removesuffix('ExecutionProvider')} {sum(counts.values())}"
        for provider, counts in providers_of.items()
    )


def _random_feeds(spec: IOSpec, batch: int) -> Feeds:
    rng = np.random.default_rng(0)
    feeds = {}
    for tensor in spec.inputs:
        open_sizes = [size for size in tensor.shape[1:] if isinstance(size, str)]
        if open_sizes:
            raise EdgekitError(
                f"input {tensor.name!r} has open sizes {', '.join(open_sizes)}",
                where="bench",
                rule="inputs without a fixed size need data",
                way_out="--data inputs.npz",
            )
        shape = [batch if isinstance(size, str) else size for size in tensor.shape]
        integer = np.issubdtype(np.dtype(tensor.dtype), np.integer)
        feeds[tensor.name] = (np.ones(shape) if integer else rng.standard_normal(shape)).astype(tensor.dtype)
    return feeds


def _given_feeds(path: Path) -> Feeds:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # A single array, as in an .npy, is no context manager: TypeError.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise EdgekitError(
            f"cannot read {path}: {error}", where="--data", rule="an .npz with one array for each input"
        ) from error
