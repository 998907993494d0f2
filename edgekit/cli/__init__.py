"""The command line: the only place that prints and exits."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from edgekit.cli import faults
from edgekit.cli.interrupts import INTERRUPTS
from edgekit.errors import EdgekitError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done, and the budget holds. 1: edgekit itself failed (a defect). 2: the command line is wrong. 3: done, but no
    candidate holds the budget. 4: the input or the machine is at fault; the message says how to mend it.
    130: interrupted; the same command goes on where it stopped.

    With --json stdout holds the result and nothing else, and what went wrong is one line of JSON, the last of stderr.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words and not {"-h", "--help"} & set(words)
    try:
        code = _run(words, as_json=as_json)
    except KeyboardInterrupt:
        code = faults.INTERRUPTED
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except EdgekitError as error:
        return faults.tell(error, as_json=as_json)
    except Exception as error:  # noqa: BLE001 - whatever else escapes is a defect and must look like one
        if faults.is_broken_library(error):
            return faults.tell(faults.broken_library(error), as_json=as_json)
        if faults.is_missing_library(error):
            return faults.tell(faults.missing_library(error), as_json=as_json)
        traceback.print_exc()
        return faults.defect(error, as_json=as_json)
    return faults.interrupted(as_json=as_json) if code == faults.INTERRUPTED else code


def _run(words: Sequence[str], *, as_json: bool) -> int:
    from edgekit.cli import show
    from edgekit.cli.app import app
    from edgekit.cli.completing import answering

    try:
        with INTERRUPTS.remembered(), show.only_data(as_json), answering():
            code = app(words, prog_name="edgekit", standalone_mode=False)
    except Exception as error:
        if not faults.is_wrong_usage(error):
            raise
        if not words:  # The help is shown then, and typer has done so.
            return faults.CommandLineError.exit_code
        raise faults.usage_error(error) from error
    return code if isinstance(code, int) else 0
