"""`edgekit quantize`: from an fp32 ONNX file to int8, fp16 or fewer bits, for one kind of device or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekit.cli import completing, show
from edgekit.cli.behaviour import MaxChurn, MaxEceRise, MaxWorstClassDrop, gates_of
from edgekit.cli.compressing import BUDGET_MISSED
from edgekit.cli.kinds import kinds_in
from edgekit.cli.onnx_files import shared_spec
from edgekit.cli.onnx_jobs import OnnxJob
from edgekit.cli.options import HOW, AsJson, PlacementBy, Ranges
from edgekit.errors import EdgekitError
from edgekit.progress import Progress
from edgekit.spec import Feeds, IOSpec
from edgekit.store import write_atomic
from edgekit.units import format_bytes, format_latency, parse_duration_s

if TYPE_CHECKING:
    from edgekit.compress.improving import Ladder
    from edgekit.compress.settings import Settings
    from edgekit.quantize import Climbed, Quantized
    from edgekit.quantize.targets import Target
    from edgekit.validate import SelectionJudge
    from edgekit.workload import Workload, WorkloadConfig

LADDER = "Budget"
SCORED_HERE = ("x86-vnni", "x86-avx2", "arm64", "size")
"""Targets whose files this machine can score; the others compute in a way of their own."""


def quantize(
    config: WorkloadConfig | OnnxJob,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="Beside a model: the fp32 ONNX file that `edgekit export` wrote.", show_default=False
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="What the file is for, or several with commas: x86-vnni (U8 activations, S8 weights), x86-avx2 (the "
            "same, no two neighbours so large that their sum saturates without VNNI), arm64 (S8 both), cuda (fp16), "
            "tensorrt (S8 symmetric, Q/DQ as TensorRT wants them), size (weights alone in 8 or 4 bits, for the "
            "smallest file; runs anywhere). One calibration serves all; several files get the target into their names. "
            " \\[default: the kind of this machine's CPU]",
            show_default=False,
            autocompletion=completing.targets,
        ),
    ] = None,
    bits: Annotated[
        Literal["8", "4"] | None,
        typer.Option(help="Bits of a weight for --target size.  \\[default: 8]", show_default=False),
    ] = None,
    scheme: Annotated[
        Literal["auto", "static", "dynamic"],
        typer.Option(
            help="static, dynamic, or auto: static for CNNs, dynamic for LSTMs and Transformers. cuda, tensorrt and "
            "size leave no choice."
        ),
    ] = "auto",
    ranges: Ranges = "mse",
    equalization: Annotated[bool, typer.Option(help="Try to even out the ranges of channels.")] = True,
    bias_correction: Annotated[bool, typer.Option(help="Try to correct the mean error of each channel.")] = True,
    placement: PlacementBy = "measured",
    threads: Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime for timing and scoring.")] = 1,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Points of the metric that may be lost on the selection split (of a file without its model: on half "
            "of --data). Where int8 loses more, learned rounding, mixed precision and training are tried in turn until "
            "it holds.",
            rich_help_panel=LADDER,
        ),
    ] = None,
    max_churn: MaxChurn = None,
    max_worst_class_drop: MaxWorstClassDrop = None,
    max_ece_rise: MaxEceRise = None,
    time: Annotated[
        str, typer.Option(help="How long that may take for each file: 90s, 10m.", rich_help_panel=LADDER)
    ] = "10m",
    profile: Annotated[
        Path | None,
        typer.Option(
            help="What operators cost on the device, for --placement and --explain, as `edgekit profile` writes it.  "
            "\\[default: the one that comes with edgekit]",
            rich_help_panel=HOW,
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print every node: int8 or not, and why.")] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="The ONNX file to write; with several targets model.int8.TARGET.onnx for each."
        ),
    ] = Path("model.int8.onnx"),
    json: AsJson = False,
) -> None:
    """Quantize an fp32 ONNX file for one target or several, to int8 where ONNX Runtime has a kernel that fuses.

    Each row of the result says what this machine could tell of the file: whether its kernels were read and run here, or
    were not run on such a device. A file alone is enough, with data to calibrate it. With --max-drop, half of these
    data decide; without the PyTorch model nothing can be trained, so the last rung is left out.

    Example: edgekit quantize net.py:model --train net.py:train_data --test net.py:test_data --file model.onnx --explain
    && edgekit quantize model.onnx --data images.zip --image-size 224
    """
    from edgekit.device.profile import load_profile
    from edgekit.quantize import quantize_for_targets

    time_s = parse_duration_s(time, "--time")
    targets = _targets(target)
    if bits is not None and "size" not in targets:
        raise EdgekitError(f"got {bits}", where="--bits", rule="only for --target size")
    file = config.only_file() if isinstance(config, OnnxJob) else file or Path()
    spec = shared_spec([file])
    gated = {"churn": max_churn, "worst-class-drop": max_worst_class_drop, "ece-rise": max_ece_rise}
    limits = {name: value for name, value in {"drop": max_drop, **gated}.items() if value is not None}
    workload, feeds = _calibrated(config, spec, scored=bool(limits))
    with show.progress(quiet=json) as progress:
        made = quantize_for_targets(
            file,
            feeds,
            {each: out if len(targets) == 1 else out.with_suffix(f".{each}{out.suffix}") for each in targets},
            spec=spec,
            scheme=scheme,
            ranges=ranges,
            equalization=equalization,
            bias_correction=bias_correction,
            bits=int(bits or 8),
            placement=placement,
            threads=threads,
            profile=None if profile is None else load_profile(profile),
            progress=progress,
        )
        climbed: list[Climbed] = []
        missed = False
        if limits and workload is not None:
            from edgekit.compress.settings import Settings
            from edgekit.validate import SelectionJudge

            judge = SelectionJudge(
                workload=workload,
                max_drop=max_drop,
                gates=gates_of(max_churn, max_worst_class_drop, max_ece_rise, None),
                threads=threads,
                seed=config.seed,
                progress=progress,
            )
            settings, trains = Settings(threads=threads, seed=config.seed), not isinstance(config, OnnxJob)
            ladder = _ladder(judge, file, spec, trains=trains, settings=settings, progress=progress)
            scored = [each for each in made if each.plan.target in SCORED_HERE]
            climbed = [_climbed(ladder, each, file, feeds, time_s=time_s) for each in scored]
            made = tuple(next((c.quantized for c in climbed if c.quantized.path == m.path), m) for m in made)
            missed = not all(judge.holds(each.judged) for each in climbed)
    if json:
        rows = [_file_row(each, next((c for c in climbed if c.quantized is each), None)) for each in made]
        show.data({"files": rows})
        raise typer.Exit(BUDGET_MISSED if missed else 0)
    if explain:
        for each in made:
            show.table(
                f"nodes, {each.plan.target}",
                ("node", "operator", "precision", "predicted fp32", "predicted int8", "why"),
                [
                    (n.name, n.op, n.precision, _predicted(n.fp32_us), _predicted(n.int8_us), n.reason)
                    for n in each.nodes
                ],
            )
    show.table(
        f"fp32: {format_bytes(file.stat().st_size)}",
        ("file", "target", "scheme", "int8 nodes", "other nodes", "size", "SQNR", "on this machine"),
        [
            (
                str(each.path),
                each.plan.target,
                each.scheme if each.plan.target != "size" else f"{each.scheme}, {bits or 8} bits",
                str(each.int8_nodes),
                str(each.float_nodes),
                format_bytes(each.path.stat().st_size),
                f"{each.sqnr_db:.1f} dB",
                each.seen_here,
            )
            for each in made
        ],
    )
    for each in made:
        _say_speed(each)
    for way in climbed:
        _say_rungs(way)
    if missed:
        asked = [f"--max-{name} {value:g}" for name, value in limits.items()]
        show.out.print(f"a file does not hold {', '.join(asked)}; the best is kept. Try more --time, or other limits")
        raise typer.Exit(BUDGET_MISSED)


def _calibrated(config: WorkloadConfig | OnnxJob, spec: IOSpec, *, scored: bool) -> tuple[Workload | None, list[Feeds]]:
    """The workload, where there is a model, and calibration data as the file takes them."""
    if isinstance(config, OnnxJob) and not scored:
        return None, list(config.feeds(spec))
    from edgekit.validate import feeds_of, signature_of
    from edgekit.workload import load_workload, loader

    if isinstance(config, OnnxJob):
        workload = config.halved(spec)
        batches = loader(workload.splits.calibration, 32, model=signature_of(spec), seed=config.seed)
    else:
        workload = load_workload(config)
        batches = loader(workload.splits.calibration, 32, model=workload.model(), seed=config.seed)
    return workload, [feeds_of(batch, spec) for batch in batches]


def _ladder(
    judge: SelectionJudge, file: Path, spec: IOSpec, *, trains: bool, settings: Settings, progress: Progress
) -> Ladder:
    """What climbing from int8 files of `file` takes."""
    from edgekit.compress.improving import Ladder

    reference = judge.score(file, spec, target="any")
    judge.gates.require(judge.changes(reference, reference), judge.workload.task.name)
    return Ladder(judge=judge, reference=reference, trains=trains, settings=settings, progress=progress)


def _climbed(ladder: Ladder, first: Quantized, source: Path, feeds: Sequence[Feeds], *, time_s: float) -> Climbed:
    """The best file of the ladder, in the place of the first."""
    with TemporaryDirectory(prefix="edgekit-ladder-") as folder:
        found = ladder.climb(first, source, feeds, Path(folder), time_s=time_s)
        write_atomic(first.path, found.quantized.path.read_bytes())
    done = replace(found.quantized, path=first.path, measured_us=first.measured_us)
    return replace(found, quantized=done)


def _say_speed(done: Quantized) -> None:
    """What the placements took here, where they were timed."""
    if not done.measured_us:
        return
    times = ", ".join(f"{name} {format_latency(us / 1000)}" for name, us in done.measured_us.items())
    show.out.print(f"{done.path.name}, measured here: {times}", markup=False)
    if min(us for name, us in done.measured_us.items() if name != "fp32") >= done.measured_us["fp32"]:
        show.out.print(f"{done.path.name} is not faster than fp32 here: ship fp32, unless size is what counts")


def _say_rungs(way: Climbed) -> None:
    rows = [
        (
            rung.name,
            "–" if rung.drop is None else f"{rung.drop:.2f}",
            "–" if rung.gain is None else f"{rung.gain:+.2f}",
            "kept" if rung.kept else "undone",
            f"{rung.seconds:.0f} s",
            rung.note,
        )
        for rung in way.rungs
    ]
    headers = ("rung", "drop", "gain", "", "time", "what it did")
    show.table(f"{way.quantized.path.name}: points lost on the selection split", headers, rows)


def _targets(text: str | None) -> list[Target]:
    """`x86-vnni,arm64` as targets, each once; None is what this machine runs."""
    from edgekit.quantize.targets import TARGETS, target_here

    return [target_here()] if text is None else list(kinds_in(text, TARGETS, "--target"))


def _file_row(done: Quantized, way: Climbed | None) -> dict[str, Any]:
    rungs = [] if way is None else [rung.to_dict() for rung in way.rungs]
    ladder = {} if way is None else {**asdict(way.judged), "rungs": rungs}
    figures = {"target": done.plan.target, "scheme": done.scheme, "int8_nodes": done.int8_nodes}
    return {**figures, "size_bytes": done.path.stat().st_size, **done.to_dict(), **ladder}


def _predicted(us: float | None) -> str:
    return "" if us is None else format_latency(us / 1000)
