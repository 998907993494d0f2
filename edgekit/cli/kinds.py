"""Options that say what kind of device files are for, and where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer

from edgekit.cli.options import HOW, LIMITS
from edgekit.errors import EdgekitError, did_you_mean

if TYPE_CHECKING:  # It needs onnx, and --help need not wait for it.
    from edgekit.quantize.targets import CpuTarget

Kind = TypeVar("Kind", bound=str)

Device = Annotated[
    Literal["x86-vnni", "x86-avx2", "arm64"] | None,
    typer.Option(
        help="The kind of CPU that the int8 file is for.  \\[default: that of this machine, or of the one that --costs "
        "or --on speak of]",
        show_default=False,
        rich_help_panel=HOW,
    ),
]
Also = Annotated[
    str | None,
    typer.Option(
        metavar="KINDS",
        help="Further kinds of CPU, with commas, that the bundle gets an int8 file of the same network for: "
        "x86-vnni,x86-avx2,arm64. Scored as they compute, not timed.",
        show_default=False,
        rich_help_panel=HOW,
    ),
]
Costs = Annotated[
    Path | None,
    typer.Option(
        help="For another machine: what pieces of networks cost there (`edgekit profile`). Decisions are priced by "
        "that instead of by measuring here. Where costs are lacking a request is written, to be timed on the device; "
        "the same command then goes on.",
        rich_help_panel=LIMITS,
    ),
]
OnDevice = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="USER@HOST",
        help="That machine, by ssh: pieces without costs are timed there, and kept in the file of --costs.  "
        "\\[default of --costs then: costs.json in the run's folder]",
        rich_help_panel=LIMITS,
    ),
]
DevicePython = Annotated[str, typer.Option(help="The Python of --on, with numpy and onnxruntime.", rich_help_panel=HOW)]


def kind_of(device: CpuTarget | None, *, costs: Path | None, host: str | None, python: str, threads: int) -> CpuTarget:
    """What int8 files are for: what was asked for, else the device that is elsewhere, else this machine."""
    from edgekit.device import isa_target
    from edgekit.profiling.book import target_of
    from edgekit.quantize.targets import target_for

    return device or target_for(target_of(costs, host, python=python, threads=threads) or isa_target())


def kinds_in(text: str, known: Sequence[Kind], where: str) -> tuple[Kind, ...]:
    """`x86-vnni,arm64` as kinds of device, each once.

    Raises:
        EdgekitError: one of them is none of `known`, or there is none.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise EdgekitError(
            f"unknown {unknown[0]!r}" if unknown else f"got {text!r}",
            where=where,
            rule=f"one or several of {', '.join(known)}, with commas",
            way_out=did_you_mean(unknown[0], known) if unknown else "",
        )
    return tuple(kind for name in names for kind in known if kind == name)
