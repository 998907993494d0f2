"""`edgekit bench`: how fast files are, beside each other, and what they cost besides."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from edgekit.cli import show
from edgekit.cli.onnx_files import named, running_file, same_contract, shared_contract
from edgekit.cli.options import HOW, AsJson, providers
from edgekit.device.benchmark import STARTS, benchmark, profile_kernels
from edgekit.device.candidates import Benchmark, Candidate, Row, Source
from edgekit.device.feeds import batch_of, random_feeds, resized, save_feeds
from edgekit.device.process import WORKER
from edgekit.device.rounds import LostError
from edgekit.device.scenarios import Scenario
from edgekit.device.session import provider_name
from edgekit.device.verify import is_bundle, open_bundle
from edgekit.errors import EdgekitError
from edgekit.report import interval
from edgekit.spec import Feeds, IOSpec
from edgekit.stats import Estimate
from edgekit.store import file_sha256, write_json
from edgekit.units import format_bytes, format_duration, format_latency, parse_duration_s

TOP = 10
NO_NUMBER = "n too small"


def _whole_numbers(values: list[str]) -> list[str]:
    """What --threads and --batch take, checked where a wrong one is a wrong command line."""
    for text in ",".join(values).split(",") if values else ():
        if not text.strip().isdigit() or int(text) < 1:
            raise typer.BadParameter(f"{text!r} is no whole number from 1 on.")
    return values


def bench(
    files: Annotated[
        list[str],
        typer.Argument(
            help="ONNX files, bundles (NAME.edgekit), or functions that return a PyTorch model (file.py:function); "
            "the first is the baseline."
        ),
    ],
    provider: Annotated[
        list[str],
        typer.Option(help="cpu, cuda or tensorrt; several with commas: each file runs on each.", rich_help_panel=HOW),
    ] = ["cpu"],  # noqa: B006 - typer copies it
    threads: Annotated[
        list[str],
        typer.Option(
            help="Threads of one run; several with commas, as 1,2,4.", rich_help_panel=HOW, callback=_whole_numbers
        ),
    ] = ["1"],  # noqa: B006
    batch: Annotated[
        list[str] | None,
        typer.Option(
            help="Samples of one run; several with commas. Ratios are per sample.  \\[default: what the file or the "
            "data have, else 1]",
            rich_help_panel=HOW,
            callback=lambda values: _whole_numbers(values or []),
        ),
    ] = None,
    scenario: Annotated[
        Literal["single-stream", "multi-stream", "offline", "server"],
        typer.Option(
            help="How queries come, as in MLPerf Inference: single-stream (one after the other), multi-stream (several "
            "samples each), offline (all samples at once: throughput), server (at random times, --rate a second: "
            "latency includes waiting).",
            rich_help_panel=HOW,
        ),
    ] = "single-stream",
    rate: Annotated[
        float | None, typer.Option(help="With --scenario server: queries a second.", rich_help_panel=HOW)
    ] = None,
    query: Annotated[
        int,
        typer.Option(
            min=0,
            help="Samples of one query, a multiple of the batch; 0 is one run, 8 in multi-stream, 1024 in offline.",
            rich_help_panel=HOW,
        ),
    ] = 0,
    time: Annotated[
        str,
        typer.Option(
            help="How long to measure at most, all together: 10s, 1m. Less where ratios are known to 1 % before; "
            "opening and warming up come on top.",
            rich_help_panel=HOW,
        ),
    ] = "10s",
    starts: Annotated[
        int,
        typer.Option(
            min=1,
            help="Fresh processes of each candidate, up to twice as many on a noisy machine: two with the same "
            "file differ by where their memory lies, so one tells little about small differences.",
            rich_help_panel=HOW,
        ),
    ] = STARTS,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Time functions through torch.compile too.", rich_help_panel=HOW)
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="An .npz with the inputs by name; random numbers without it.")
    ] = None,
    profile_nodes: Annotated[
        bool,
        typer.Option(
            "--profile-nodes",
            help="Afterwards, in processes of their own, what each node takes: the ten costliest, the same nodes of "
            "all files side by side.",
        ),
    ] = False,
    raw: Annotated[
        Path | None, typer.Option(help="Write every sample, beside all that --json gives, to this JSON file.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Time files in interleaved rounds on the same input, with intervals, a verdict, and what they cost besides.

    Each candidate (each file on each provider, with each number of threads and each batch size) has fresh processes of
    its own; one works at a time, in random order, so that a noisy machine treats all alike. One that crashes is a row
    that says why. A percentile without enough samples is not shown; below 1 % there is no measurable difference.

    Example: edgekit bench model.onnx model.int8.onnx --threads 1,2 --time 20s
    """
    time_s = parse_duration_s(time, "--time")
    on = providers(",".join(provider))
    if len(on) == 1:
        provider_name(on[0])  # Processes would only say the same, one after the other.
    asked = Scenario(kind=scenario, samples=query, rate=rate)
    spec = _contract(files)
    sources = _sources(files, compiled=compiled)
    given = None if data is None else _given_feeds(data)
    if given is not None and spec is not None:
        spec.check_feeds(given)
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
        candidates = _candidates(
            sources,
            on,
            _numbers(threads),
            _numbers(batch or []) or [None],
            feeds=_feeds_maker(spec, given, sources, Path(folder)),
        )
        with show.progress(quiet=json) as progress:
            found = benchmark(candidates, scenario=asked, time_s=time_s, starts=starts, progress=progress)
            if not found.rows:
                raise found.failed[0].reason
            nodes = _profiled(found, Path(folder)) if profile_nodes else []
    hashes = {name: file_sha256(Path(path)) for name, (path, source) in sources.items() if source == "onnx"}
    hashes |= {name: open_bundle(path).sha256 for name, (path, source) in sources.items() if source == "bundle"}
    if raw is not None:
        write_json(raw, {**found.to_dict(raw=True), "sha256": hashes})
    if json:
        show.data({**found.to_dict(), "sha256": hashes, "nodes": nodes})
        return
    _tables(found)
    if nodes:
        _node_table(nodes, [row.candidate.name for row in found.rows if row.kernels is not None])
    cpu = found.before["cpu"]
    show.out.print(
        f"{cpu['model']}, {cpu['cores']} cores; onnxruntime {found.before['versions'].get('onnxruntime', 'none')}; "
        f"measured for {format_duration(time_s)} at most, in {found.starts} processes each",
        markup=False,
    )


def _sources(files: Sequence[str], *, compiled: bool) -> dict[str, tuple[str, Source]]:
    """Path and kind of what is to be timed, by name."""
    found: dict[str, tuple[str, Source]] = {}
    names = {path: name for name, path in named([Path(file) for file in files if _kind(file) == "onnx"]).items()}
    for file in files:
        kind = _kind(file)
        if kind == "onnx":
            found[names[Path(file)]] = file, kind
        elif kind == "bundle":
            found[file if Path(file).name in found else Path(file).name] = file, kind
        else:
            found[f"{Path(file).name} (eager)"] = file, "eager"
            if compiled:
                found[f"{Path(file).name} (compiled)"] = file, "compiled"
    return found


def _kind(file: str) -> Source:
    if is_bundle(file):
        return "bundle"
    return "eager" if ":" in file and not Path(file).is_file() else "onnx"


def _contract(files: Sequence[str]) -> IOSpec | None:
    """What all files and bundles take and give; None where there are only functions."""
    onnx = [Path(file) for file in files if _kind(file) == "onnx"]
    bundles = [(Path(file), open_bundle(file).manifest.spec) for file in files if _kind(file) == "bundle"]
    spec = shared_contract(onnx) if onnx else None
    for path, other in bundles:
        spec = spec or other
        same_contract(other, spec, path, onnx[0] if onnx else bundles[0][0])
    return spec


def _feeds_maker(
    spec: IOSpec | None, given: Feeds | None, sources: Mapping[str, tuple[str, Source]], folder: Path
) -> Callable[[int | None], tuple[int | None, Path | None]]:
    """For a batch size, the size that there really is, and the file with the inputs."""
    only_bundles = all(source == "bundle" for _, source in sources.values())

    def make(batch: int | None) -> tuple[int | None, Path | None]:
        if given is None and (spec is None or only_bundles):
            return batch, None  # A bundle has samples of its own; a function without inputs says what is missing.
        if given is not None:
            feeds = given if batch is None else resized(given, batch)
        else:
            assert spec is not None
            feeds = random_feeds(spec, batch or 1)
        path = folder / f"feeds-{batch}.npz"
        save_feeds(path, feeds)
        return batch or batch_of(feeds), path

    return make


def _candidates(
    sources: Mapping[str, tuple[str, Source]],
    on: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int | None],
    *,
    feeds: Callable[[int | None], tuple[int | None, Path | None]],
) -> list[Candidate]:
    """The product of all that was asked for; names say what differs."""
    from edgekit.bench.torch_worker import WORKER as TORCH

    made = {batch: feeds(batch) for batch in batches}
    found = []
    for (name, (path, source)), provider, count, batch in product(sources.items(), on, threads, batches):
        parts = [name, *([provider] if len(on) > 1 else [])]
        parts += [f"{count} thread{'s' if count > 1 else ''}"] if len(threads) > 1 else []
        parts += [f"batch {batch}"] if len(batches) > 1 else []
        found.append(
            Candidate(
                name=", ".join(parts),
                path=path,
                source=source,
                provider=provider,
                threads=count,
                batch=made[batch][0],
                feeds=made[batch][1],
                worker=WORKER if source in ("onnx", "bundle") else TORCH,
            )
        )
    return found


def _profiled(found: Benchmark, folder: Path) -> list[dict[str, Any]]:
    """Rows of nodes of all ONNX files, those that run of bundles among them; a function's model has no nodes here."""
    from edgekit.bench import node_rows

    profiles = {}
    for index, row in enumerate(found.rows):
        if row.candidate.source not in ("onnx", "bundle"):
            continue
        optimized = folder / f"optimized-{index}.onnx"
        try:
            kernels = profile_kernels(row.candidate, optimized=optimized)
        except LostError:
            continue  # It was timed: only the profiler cannot run it.
        path = Path(row.candidate.path)
        if row.candidate.source == "bundle":
            path = running_file(path, folder / f"running-{index}.onnx", provider=row.candidate.provider)
        profiles[row.candidate.name] = path, optimized, kernels
    return [row.to_dict() for row in node_rows(profiles)]


def _tables(found: Benchmark) -> None:
    rows = found.rows
    common = rows[0].candidate
    threads = {row.candidate.threads for row in rows}
    batches = {row.batch for row in rows}
    about = [
        *([common.provider] if len({row.candidate.provider for row in rows}) == 1 else []),
        *([f"{common.threads} thread{'s' if common.threads > 1 else ''}"] if len(threads) == 1 else []),
        *([f"batch {rows[0].batch}"] if len(batches) == 1 else []),
        *([] if found.scenario.kind == "single-stream" else [found.scenario.kind]),
    ]
    show.table(
        ", ".join(about) or "candidates",
        ("candidate", "p50 [95 %]", "p90 [95 %]", "p99 [95 %]", "n", "samples/s [95 %]", "vs first [95 %]", "verdict"),
        [
            (
                row.candidate.name,
                _ms(row.latency.p50),
                _ms(row.latency.p90),
                _ms(row.latency.p99),
                str(len(row.latency.samples_ms)),
                interval(row.throughput.to_dict(), 1),
                "–" if row.ratio is None else interval(row.ratio.to_dict(), 3, "×"),
                row.verdict or "no baseline",
            )
            for row in rows
        ],
    )
    show.table(
        "what it costs besides",
        ("candidate", "load", "first run", "peak memory", "before the model", "arena", "size", "energy", "nodes on"),
        [_costs(row) for row in rows],
    )
    for text in _remarks(found):
        show.out.print(text, markup=False)


def _costs(row: Row) -> tuple[str, ...]:
    arena = None if row.kernels is None else row.kernels.arena_bytes
    nodes = {} if row.kernels is None else row.kernels.by_provider()
    return (
        row.candidate.name,
        format_latency(float(np.median(row.load_ms))),
        format_latency(float(np.median(row.first_ms))),
        format_bytes(row.peak_bytes),
        format_bytes(row.base_bytes),
        "–" if arena is None else format_bytes(arena),
        "–" if row.size_bytes is None else format_bytes(row.size_bytes),
        "–" if row.energy_j is None else interval({k: 1e3 * v for k, v in row.energy_j.to_dict().items()}, 2, " mJ"),
        ", ".join(f"{name.removesuffix('ExecutionProvider')} {count}" for name, count in nodes.items()) or "–",
    )


def _remarks(found: Benchmark) -> Iterator[str]:
    for failed in found.failed:
        yield f"{failed.candidate.name}: FAILED: {failed.reason}"
    for row in found.rows:
        yield from (f"{row.candidate.name}: {text}" for text in (row.note, *row.remarks) if text)
    yield from found.remarks


def _node_table(nodes: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    shown = [name for name in names if any(name in row["us"] for row in nodes)]
    rows = []
    for row in nodes[:TOP]:
        label = ", ".join(row["nodes"]) or f"(inserted: {row['operators'][0]})"
        cells = [label if len(label) <= 60 else f"{label[:57]}...", " + ".join(row["operators"][:6])]
        for name in shown:
            if name in row["us"]:
                kinds = " + ".join(dict.fromkeys(row["kernels"][name]))
                cells.append(f"{row['us'][name]:.1f} µs {row['share'][name]:.0%} in {kinds}")
            else:
                cells.append("–")
        rows.append(tuple(cells))
    show.table(f"the {len(rows)} costliest nodes, under the profiler", ("nodes", "operators", *shown), rows)


def _ms(estimate: Estimate | None) -> str:
    """A latency with its interval in one unit."""
    if estimate is None:
        return NO_NUMBER
    scale, unit, digits = (1e3, "µs", 1) if estimate.value < 1 else (1.0, "ms", 2)
    low, high = scale * estimate.low, scale * estimate.high
    return f"{scale * estimate.value:.{digits}f} {unit} [{low:.{digits}f}, {high:.{digits}f}]"


def _numbers(values: Sequence[str]) -> list[int]:
    """`1,2` and repeated options as numbers, each once."""
    return list(dict.fromkeys(int(text) for text in ",".join(values).split(",") if text.strip()))


def _given_feeds(path: Path) -> Feeds:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # A single array, as in an .npy, is no context manager: TypeError.
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise EdgekitError(
            f"cannot read {path}: {error}", where="--data", rule="an .npz with one array for each input"
        ) from error
