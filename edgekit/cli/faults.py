"""How a command's end is told: as text for people, or as one line of JSON for programs."""

from __future__ import annotations

import json
import re
import sys
from typing import Any, ClassVar

from edgekit.errors import EdgekitError, did_you_mean

INTERRUPTED = 130


class CommandLineError(EdgekitError):
    """The command line is wrong."""

    exit_code: ClassVar[int] = 2


class MissingLibraryError(EdgekitError):
    """A command needs a library that is not installed."""


class InterruptError(EdgekitError):
    """Ctrl-C."""

    exit_code: ClassVar[int] = INTERRUPTED


class DefectError(EdgekitError):
    """What no user can cause."""

    exit_code: ClassVar[int] = 1


def is_wrong_usage(error: Exception) -> bool:
    """Whether typer could not read the command line; it exports no name for what it raises then."""
    import typer

    return isinstance(error, typer.BadParameter.__mro__[1])


def usage_error(error: Any) -> CommandLineError:
    """What typer says of a wrong command line, with the nearest word that would have been right."""
    said = str(error.format_message())
    place = "edgekit" if error.ctx is None else str(error.ctx.command_path)
    problem, near = said, ""
    if possible := getattr(error, "possibilities", None):
        problem, near = str(error.message), did_you_mean(error.option_name, possible)
    elif found := re.search(r"'([^']*)' is not one of (.*)", said, re.DOTALL):
        # typer keeps neither the value nor the choices.
        near = did_you_mean(found[1], re.findall(r"'([^']*)'", found[2]))
    way_out = f"{near}{' ' if near else ''}Try '{place} -h' for help"
    return CommandLineError(problem, where=place, way_out=way_out)


def is_missing_library(error: Exception) -> bool:
    """Whether a library cannot be found; a module of ours that cannot is a defect."""
    return isinstance(error, ModuleNotFoundError) and (error.name or "edgekit").partition(".")[0] != "edgekit"


def missing_library(error: Exception) -> MissingLibraryError:
    """For a library of the `compress` extra that cannot be imported."""
    return MissingLibraryError(
        f"this command needs a library that is not installed ({error})",
        where="this Python",
        way_out="pip install 'edgekit[cpu,compress]', or on a device use `python -m edgekit.device`",
    )


def is_broken_library(error: Exception) -> bool:
    """Whether a torchvision that was built for another torch (CUDA for CPU) has failed to import."""
    return isinstance(error, RuntimeError) and str(error).startswith("operator torchvision::")


def broken_library(error: Exception) -> MissingLibraryError:
    """For such a torchvision: torchmetrics, timm and transformers import it where it is installed."""
    return MissingLibraryError(
        f"cannot import torchvision: {error}",
        where="this Python",
        rule="the torchvision that was built for this torch, or none",
        way_out="install both from one index, CPU or CUDA, or: pip uninstall torchvision",
    )


def tell(error: EdgekitError, *, as_json: bool) -> int:
    """Print a fault on stderr and return the exit code.

    The JSON is {"error": {"problem", "where", "rule", "way_out", "exit_code"}}.
    """
    if as_json:
        fields = {name: getattr(error, name) for name in ("problem", "where", "rule", "way_out")}
        print(json.dumps({"error": {**fields, "exit_code": error.exit_code}}), file=sys.stderr)
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def interrupted(*, as_json: bool) -> int:
    """Say that Ctrl-C has been heard."""
    goes_on = "nothing is lost: the same command goes on where it stopped"
    if as_json:
        return tell(InterruptError("interrupted", where="Ctrl-C", way_out=goes_on), as_json=True)
    print(f"interrupted; {goes_on}", file=sys.stderr)
    return INTERRUPTED


def defect(error: Exception, *, as_json: bool) -> int:
    """Ask for a report of what the traceback above shows."""
    report = "this is a defect of edgekit; please report it with the lines above"
    if as_json:
        return tell(DefectError(f"{type(error).__name__}: {error}", where="edgekit", way_out=report), as_json=True)
    print(f"edgekit failed: {report}", file=sys.stderr)
    return DefectError.exit_code
