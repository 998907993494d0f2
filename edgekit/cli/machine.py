"""`edgekit doctor` and `edgekit init`: the machine and the folder one works in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekit.cli import show
from edgekit.cli.options import CONFIG_NAME, AsJson, Threads
from edgekit.cli.profiling import profile_networks, sizes
from edgekit.device.profile import Cost
from edgekit.errors import EdgekitError
from edgekit.store import write_atomic
from edgekit.units import parse_duration_s

FAULT = 4


def doctor(json: AsJson = False) -> None:
    """Say what is installed, which execution providers truly work, and what to do about each fault.

    Every provider is tried by running a model on it. The exit code is 4 if something is at fault.

    Example: edgekit doctor
    """
    from edgekit.device import doctor as examine

    findings = examine()
    if json:
        show.data([finding.to_dict() for finding in findings])
    else:
        show.table(
            "edgekit doctor",
            ("what", "status", "found", "what to do"),
            [(f.name, f.status, f.found, f.way_out) for f in findings],
        )
    if any(finding.status == "fault" for finding in findings):
        raise typer.Exit(FAULT)


def profile(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="ONNX files, fp32 or int8, whose pieces are timed; without any, the patterns of int8."),
    ] = None,
    target: Annotated[
        Literal["x86-vnni", "x86-avx2", "arm64"] | None,
        typer.Option("--device", help="Without FILES: what kind of device this machine is.  \\[default: found out]"),
    ] = None,
    threads: Threads = 1,
    time: Annotated[str, typer.Option(help="How long to measure: 1m, 3m.")] = "1m",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The file to write. Costs of FILES that it has already are not timed again, so a killed run goes on.  "
            "\\[default: profile.json, or costs.json for FILES]",
        ),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(
            help="Time nothing; write what is to be timed to this file, for `python -m edgekit.device profile` on a "
            "device that has numpy and onnxruntime alone."
        ),
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(help="Time nothing; predict from the costs in this file, which a device brought back."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="USER@HOST",
            help="Time on this machine, by the system's own ssh: nothing is installed there, nothing stays there.",
        ),
    ] = None,
    python: Annotated[
        str, typer.Option(help="With --on: the interpreter there that has numpy and onnxruntime.")
    ] = "python3",
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Sizes of an input, as INPUT=1x3x224x224, where the file leaves more open than the batch."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Measure what operators cost on a device: those of networks, to predict their latency, or the patterns of int8.

    With FILES, each network is cut into small graphs that are timed (here, by a --request, or --on another machine);
    what the whole is predicted to take is printed with the known error of such predictions and the costliest pieces.

    Without, it is found out which operators ONNX Runtime runs in int8 on this machine, and what each costs in fp32 and
    in int8; `edgekit quantize --profile FILE --explain` then says what each node of a network is predicted to cost.

    Example: edgekit profile model.onnx model.int8.onnx --on pi@raspberrypi --out costs.json
    """
    of_networks = {"--request": request, "--costs": costs, "--on": host, "--shape": shape}
    given = [name for name, value in of_networks.items() if value]
    if not files and given:
        raise EdgekitError(f"no FILES for {', '.join(given)}", where="command line", rule="ONNX files to profile")
    if len({"--request", "--costs", "--on"} & set(given)) > 1:
        raise EdgekitError(
            f"{' and '.join(name for name in given if name != '--shape')} at once",
            where="command line",
            rule="one of: write a request, predict from costs, time on another machine",
        )
    time_s = parse_duration_s(time, "--time")
    if files:
        profile_networks(
            files,
            shapes=sizes(shape or ()),
            request=request,
            costs=costs,
            host=host,
            python=python,
            threads=threads,
            time_s=time_s,
            out=out or Path("costs.json"),
            json=json,
        )
    else:
        _profile_patterns(target, threads=threads, time_s=time_s, out=out or Path("profile.json"), json=json)


def _profile_patterns(target: str | None, *, threads: int, time_s: float, out: Path, json: bool) -> None:
    from edgekit.device import isa_target
    from edgekit.quantize.probe import probe
    from edgekit.quantize.targets import ACTIVATION

    kind = target or isa_target()
    if kind not in ACTIVATION:
        raise EdgekitError(
            f"this processor is {kind}",
            where="--device",
            rule=f"one of {', '.join(ACTIVATION)}",
            way_out="name the one that comes closest",
        )
    with show.progress(quiet=json) as progress:
        found = probe(kind, threads=threads, time_s=time_s, progress=progress)
    found.save(out)
    if json:
        show.data(found.to_dict())
        return
    show.table(
        "patterns: images of 32 channels, microseconds",
        ("pattern", "fuses u8", "fuses s8", "fp32", "int8", "runs as"),
        [
            (
                name,
                "yes" if pattern.fused.get("uint8", True) else "no",
                "yes" if pattern.fused.get("int8", True) else "no",
                _cost(pattern.fp32, pattern.unit),
                _cost(pattern.int8, pattern.unit),
                ", ".join(pattern.kernels),
            )
            for name, pattern in found.patterns.items()
        ],
    )
    show.out.print(f"wrote {out}", markup=False)


def _cost(cost: Cost, unit: str) -> str:
    return f"{cost.base_us:.2f} + {cost.rate_us:.4f} per 1000 {unit}" if cost.rate_us or cost.base_us else ""


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path(),
) -> None:
    """Write a commented edgekit.toml that names the model, the data and the task, so that commands need no options.

    Example: edgekit init && edgekit compress
    """
    from edgekit.workload import TEMPLATE

    path = folder / CONFIG_NAME
    if path.exists():
        raise EdgekitError(
            f"{path} is there already",
            where=str(folder),
            rule="nothing is overwritten",
            way_out="edit it, or remove it",
        )
    write_atomic(path, TEMPLATE)
    show.out.print(f"wrote {path}: fill in model, train and test, then run `edgekit compress`", markup=False)
