"""`edgekit doctor` and `edgekit init`: the machine and the folder one works in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekit.cli import show
from edgekit.cli.options import CONFIG_NAME, AsJson, Threads
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
    target: Annotated[
        Literal["x86-vnni", "x86-avx2", "arm64"] | None,
        typer.Option("--device", help="What kind of device this machine is.  [default: found out]"),
    ] = None,
    threads: Threads = 1,
    time: Annotated[str, typer.Option(help="How long to measure: 1m, 3m.")] = "1m",
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("profile.json"),
    json: AsJson = False,
) -> None:
    """Find out which operators ONNX Runtime runs in int8 on this machine, and what each costs in fp32 and in int8.

    `edgekit quantize --profile FILE --explain` then says what each node of a network is predicted to cost here.

    Example: edgekit profile --time 1m --out profile.json
    """
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
        found = probe(kind, threads=threads, time_s=parse_duration_s(time, "--time"), progress=progress)
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
