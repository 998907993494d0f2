"""All commands of `edgekit`, in the order in which a newcomer needs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

import edgekit
from edgekit.cli import (
    benching,
    bundles,
    compressing,
    distilling,
    explaining,
    inspecting,
    machine,
    proof,
    quantizing,
    reporting,
    searching,
    stages,
    transferring,
    verifying,
)
from edgekit.cli.options import takes_workload

app = typer.Typer(
    name="edgekit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turns a trained PyTorch model into the fastest ONNX bundle that stays inside an accuracy budget, and "
    "proves it.\n\nStart with [bold]edgekit demo[/bold]. Exit codes: 0 the budget holds; 1 edgekit failed; 2 wrong "
    "command line; 3 no candidate holds the budget (the closest is kept); 4 the input or the machine is at fault; 130 "
    "interrupted.",
    rich_markup_mode="rich",
)

_ROOMS: dict[str, tuple[Callable[..., Any], ...]] = {
    "The whole way": (compressing.demo, machine.init, takes_workload(compressing.compress)),
    "Search": (takes_workload(searching.search), searching.worker),
    "One stage at a time": (
        takes_workload(stages.prune),
        takes_workload(distilling.distill),
        takes_workload(transferring.finetune),
        takes_workload(stages.export),
        takes_workload(quantizing.quantize, files="train"),
    ),
    "The proof": (
        takes_workload(proof.validate, files="test"),
        benching.bench,
        takes_workload(explaining.explain),
        reporting.report,
        reporting.compare,
    ),
    "Bundles and devices": (
        takes_workload(bundles.bundle, files="test"),
        inspecting.inspect,
        verifying.verify,
        bundles.run,
        machine.profile,
        machine.doctor,
    ),
}


def _unwrapped(text: str) -> str:
    r"""Paragraphs of one line each: a terminal wraps them where it ends, and not where the source does.

    >>> _unwrapped("Do it.\n\n    Now\n    or later.")
    'Do it.\n\nNow or later.'
    """
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"edgekit {edgekit.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What stands before a command."""


for _panel, _commands in _ROOMS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel, help=_unwrapped(_command.__doc__ or ""))(_command)
