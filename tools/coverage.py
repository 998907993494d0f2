"""Does edgekit take other people's code? Architectures of timm, torchvision and transformers, through it all.

Each network (random weights, nothing is downloaded) is built, exported with the parity gate, pruned by 30 % of all
widths with the proof, exported again, quantized to int8, and run in ONNX Runtime, in a process of its own with limits.

    python tools/coverage.py                       # all; hours on two cores
    python tools/coverage.py --only 'timm-resnet'  # those whose name fits
    python tools/coverage.py --table               # try nothing, write the page again
    python tools/coverage.py --torch-pruning PYTHON   # those that have been tried, through Torch-Pruning as well

What is found of a network is kept in a file of its own at once, and the same command goes on with the others, also from
the results at `--out` alone; `--again` tries those that `--only` names once more. timm, torchvision and transformers
have to be installed. Page and results go to artifacts/coverage.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coverage_study.catalogue import subjects
from coverage_study.page import page, summary
from coverage_study.processes import beside, run_all

from edgekit.errors import EdgekitError
from edgekit.store import write_atomic, write_json
from edgekit.units import format_duration

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "artifacts" / "coverage"
WORK = ROOT / "edgekit-runs" / "coverage"
RESULTS, PAGE = "results.json", "README.md"
TAKEN_BY_OTHERS = ("timm", "torchvision")
"""Sources of networks that go through Torch-Pruning as well: those that take an image."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="REGEX", help="networks whose name (timm-NAME) it is found in")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default 1)")
    parser.add_argument("--time-limit", type=int, default=300, metavar="S", help="processor seconds each (default 300)")
    parser.add_argument("--memory", type=float, default=6.0, metavar="GB", help="for each (default 6)")
    parser.add_argument("--work", type=Path, default=WORK, help="one file a network (default edgekit-runs/coverage)")
    parser.add_argument("--out", type=Path, default=OUT, help="page and results (default artifacts/coverage)")
    parser.add_argument("--again", action="store_true", help="try those that --only names once more")
    parser.add_argument("--table", action="store_true", help="try nothing, write page and results again")
    parser.add_argument("--torch-pruning", type=Path, metavar="PYTHON", help="an interpreter that has it: compare")
    options = parser.parse_args(arguments)
    try:
        if options.torch_pruning:
            _beside(options)
        elif not options.table:
            _study(options)
        known = [found for each in subjects() if (found := _known(options, each.key))]
        write_json(options.out / RESULTS, known)
        write_atomic(options.out / PAGE, page(known, len(subjects())))
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(summary(known))
    return 0


def _known(options: argparse.Namespace, key: str) -> dict[str, Any] | None:
    """What was found of a network by this run or by the one whose results lie at `--out`."""
    path = options.work / f"{key}.json"
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        return found if found.get("done") else None
    results = options.out / RESULTS
    kept = json.loads(results.read_text()) if results.is_file() else []
    return next((each for each in kept if each["key"] == key), None)


def _study(options: argparse.Namespace) -> None:
    chosen = [each for each in subjects() if re.search(options.only, each.key)]
    if not chosen:
        raise EdgekitError(f"no name fits {options.only!r}", where="--only", way_out="timm-NAME or torchvision-NAME")
    options.work.mkdir(parents=True, exist_ok=True)
    missing = [each for each in chosen if options.again or _known(options, each.key) is None]
    begin = time.monotonic()
    memory = int(options.memory * 2**30)
    runs = run_all(missing, options.work, jobs=options.jobs, seconds=options.time_limit, memory=memory)
    for done, record in enumerate(runs, start=1):
        left = (time.monotonic() - begin) / done * (len(missing) - done)
        states = ", ".join(f"{name} {stage['status']}" for name, stage in record["stages"].items())
        print(f"{done}/{len(missing)} {record['key']}: {states}; about {format_duration(left)} left", flush=True)


def _beside(options: argparse.Namespace) -> None:
    chosen = [each for each in subjects() if re.search(options.only, each.key)]
    known = [(each, _known(options, each.key)) for each in chosen]
    missing = [
        (subject, record)
        for subject, record in known
        if record is not None
        and subject.source in TAKEN_BY_OTHERS
        and record["stages"]["build"]["status"] == "passed"
        and (options.again or "torch-pruning" not in record)
    ]
    begin = time.monotonic()
    memory = int(options.memory * 2**30)
    for done, (subject, record) in enumerate(missing, start=1):
        found = beside(record, subject, options.torch_pruning, seconds=options.time_limit, memory=memory)
        write_json(options.work / f"{subject.key}.json", found)
        left = (time.monotonic() - begin) / done * (len(missing) - done)
        about = found["torch-pruning"]["outcome"]
        print(f"{done}/{len(missing)} {subject.key}: {about}; about {format_duration(left)} left", flush=True)


if __name__ == "__main__":
    sys.exit(main())
