"""`edgekit doctor` and `edgekit init`: the machine and the folder one works in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli import show
from edgekit.cli.options import CONFIG_NAME, AsJson
from edgekit.errors import EdgekitError
from edgekit.store import write_atomic

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
