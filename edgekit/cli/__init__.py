"""The command line: the only place that prints and exits."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

from edgekit.cli.interrupts import INTERRUPTS
from edgekit.errors import EdgekitError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done, and the budget holds. 1: edgekit itself failed (a defect). 2: the command line is wrong. 3: done, but no
    candidate holds the budget. 4: the input or the machine is at fault; the message says how to mend it.
    130: interrupted; the same command goes on where it stopped.
    """
    try:
        from edgekit.cli.app import app
    except KeyboardInterrupt:
        return _interrupted()
    except ImportError as error:
        print(
            f"edgekit: this command needs a library that is not installed ({error}).\n"
            "  way out: pip install 'edgekit[cpu,compress]', or on a device use `python -m edgekit.device`",
            file=sys.stderr,
        )
        return EdgekitError.exit_code
    try:
        with INTERRUPTS.remembered():
            app(list(sys.argv[1:] if argv is None else argv))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return _interrupted() if code == INTERRUPTED else code
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:  # noqa: BLE001 - whatever else escapes is a defect and must look like one
        traceback.print_exc()
        print("edgekit failed: this is a defect of edgekit; please report it with the lines above", file=sys.stderr)
        return 1
    return 0


def _interrupted() -> int:
    print("interrupted; nothing is lost: the same command goes on where it stopped", file=sys.stderr)
    return INTERRUPTED
