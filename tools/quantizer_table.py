"""Compare edgekit's quantizer with others on all reference networks, and publish the table.

    python tools/quantizer_table.py --python nncf=~/nncf/bin/python --python aimet=~/aimet/bin/python
    python tools/quantizer_table.py resnet20 lstm            # some of them
    python tools/quantizer_table.py --table                  # measure nothing, write the page again

For each network of tools/reference/catalogue.py: `edgekit export` writes the fp32 file, and
tools/benchmark_quantizers.py, whose help says what is compared and how to install the other quantizers, makes and
measures the int8 files. The reports and the page go to artifacts/quantizers, the files to edgekit-runs/quantizers. The
page is written again after each network, and a network whose fp32 file and int8 file of edgekit are those of its report
is not measured again: an interrupted run goes on, and after a change only what it touches is measured. A network that
cannot be measured (its weights are missing, say) is told of, and the others go on.

Exit codes: 0 done; 1 with --check, the page is another one; 2 wrong command line; 4 a network could not be measured.
Leave the machine alone while it runs: latencies are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantizer_benchmark.picture import picture
from quantizer_benchmark.published import PICTURE, readme
from reference.catalogue import COMPARED

from edgekit.store import write_atomic
from edgekit.units import format_duration

ROOT = Path(__file__).resolve().parents[1]
OUT, RUNS = ROOT / "artifacts" / "quantizers", ROOT / "edgekit-runs" / "quantizers"
PAGE = "README.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMPARED)}; all without any")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="the interpreter in whose environment a quantizer is installed, for tools/benchmark_quantizers.py",
    )
    parser.add_argument("--again", action="store_true", help="measure networks again whose files have not changed")
    parser.add_argument("--time", default="30s", help="how long to measure all files of a network (default 30s)")
    parser.add_argument(
        "--out", type=Path, default=OUT, help="where reports and page go (default artifacts/quantizers)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--table", action="store_true", help="measure nothing, write the page of the reports there are")
    how.add_argument("--check", action="store_true", help="change nothing; fail if the page is not that of the reports")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(COMPARED)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(COMPARED)}")
    if options.check:
        return _check(options.out)
    if options.table:
        publish(options.out)
        return 0
    failed = []
    for name in options.names or COMPARED:
        begin = time.monotonic()
        print(f"== {name}", flush=True)
        code = measure(name, options)
        took = format_duration(time.monotonic() - begin)
        print(f"== {name}: {f'not measured, exit code {code}' if code else 'done'} after {took}", flush=True)
        if code:
            failed.append(name)
        publish(options.out)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 4 if failed else 0


def measure(name: str, options: argparse.Namespace) -> int:
    """Export a network and compare its int8 files; the exit code of what failed, or 0."""
    reference, folder = COMPARED[name], RUNS / name
    fp32 = folder / "fp32.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    code = _run([sys.executable, "-m", "edgekit", "export", reference.model, *reference.workload, "--out", str(fp32)])
    if code:
        return code
    compare = [sys.executable, "tools/benchmark_quantizers.py", str(fp32), "--workload-model", reference.model]
    pythons = [word for python in options.python for word in ("--python", python)]
    resume = () if options.again else ("--resume",)
    out = ("--keep", str(folder), "--json", str((options.out / f"{name}.json").resolve()))
    return _run([*compare, *reference.workload, *pythons, "--time", options.time, *resume, *out])


def publish(out: Path) -> None:
    """Write the page and its picture of the reports in `out`."""
    reports = _reports(out)
    write_atomic(out / PAGE, readme(reports, _families()))
    if reports:
        write_atomic(out / PICTURE, picture(reports))


def _check(out: Path) -> int:
    page = out / PAGE
    if page.is_file() and page.read_text() == readme(_reports(out), _families()):
        return 0
    print(f"{page.name} is not that of the reports beside it: run `python tools/quantizer_table.py --table`")
    return 1


def _reports(out: Path) -> dict[str, Any]:
    """Those there are, in the order of the catalogue."""
    files = {name: out / f"{name}.json" for name in COMPARED}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.is_file()}


def _families() -> dict[str, str]:
    return {name: reference.family for name, reference in COMPARED.items()}


def _run(command: Sequence[str]) -> int:
    """From the root of the checkout, where the catalogue's paths start, with this checkout's edgekit."""
    print(shlex.join(["python", *command[1:]]), flush=True)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
