r"""Show that the memory of edgekit's quantizer does not grow with the number of calibration samples.

    python tools/calibration_memory.py --workload-model ../shared/user-project/project.py:model \
        --train ../shared/user-project/project.py:train_data --test ../shared/user-project/project.py:test_data

Quantizes the network once for each number of samples, each time in a fresh process that reads its batches from disk one
by one, and tells the most memory that the process ever held. Samples are those of the calibration split, which takes at
most a quarter of the training data.

Exit codes: 0 the largest and the smallest peak are within 10 %; 1 they are not; 2 wrong command line; 4 the workload or
its data are at fault, or the quantizer failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from quantizer_benchmark.faults import NoFile
from quantizer_benchmark.inputs import CALIBRATION_BATCH, add_workload, workload_config
from quantizer_benchmark.processes import Process, job_for, make
from quantizer_benchmark.quantizers import OWN

from edgekit.errors import DataError, EdgekitError
from edgekit.store import write_json

SAMPLES = (500, 10_000)
GROWTH = 0.10


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload(parser)
    parser.add_argument(
        "--samples",
        type=_counts,
        default=SAMPLES,
        metavar="N,N",
        help=f"how many calibration samples to use in turn (default {','.join(map(str, SAMPLES))})",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to this file")
    parser.add_argument("--seed", type=int, default=0, help="of the splits (default 0)")
    options = parser.parse_args(arguments)
    if None in (options.workload_model, options.train, options.test):
        parser.error("--workload-model, --train and --test: a network and its data")
    try:
        found = peaks(options)
    except (EdgekitError, NoFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    return _tell(found, options.json)


def peaks(options: argparse.Namespace) -> dict[int, Process]:
    """What it takes to quantize the network with each number of samples.

    Raises:
        EdgekitError: the workload cannot be loaded or exported, or has too few samples.
        NoFile: the quantizer failed.
    """
    from edgekit.export import export
    from edgekit.spec import Feeds
    from edgekit.validate import feeds_of
    from edgekit.workload import load_workload, loader, size_of

    most = max(options.samples)
    workload = load_workload(replace(workload_config(options), calibration_size=most))
    split = workload.splits.calibration
    if size_of(split) < most:
        raise DataError(
            f"the calibration split has {size_of(split)} samples",
            where="--samples",
            rule=f"{most}, which are at most a quarter of the training data",
            way_out="ask for fewer",
        )
    found = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-calibration-") as folder:
        exported = export(workload.model(), workload.example(), Path(folder) / "fp32.onnx")

        def first(count: int) -> Iterator[Feeds]:
            rest = count
            for batch in loader(split, CALIBRATION_BATCH, model=workload.model(), seed=options.seed):
                feeds = feeds_of(batch, exported.spec)
                yield {name: array[:rest] for name, array in feeds.items()}
                rest -= len(batch)
                if rest <= 0:
                    return

        for count in options.samples:
            with job_for(exported.path, exported.spec, first(count), "x86-vnni") as job:
                assert job.samples == count
                found[count] = make(OWN, job, Path(folder) / "int8.onnx")
    return found


def _tell(found: dict[int, Process], path: Path | None) -> int:
    from edgekit.report import markdown
    from edgekit.units import format_bytes, format_duration

    sizes = [process.peak_bytes for process in found.values()]
    growth = max(sizes) / min(sizes) - 1
    rows = [
        (f"{count:,}", format_bytes(one.peak_bytes), format_bytes(one.imported_bytes), format_duration(one.seconds))
        for count, one in found.items()
    ]
    print(markdown(("samples", "peak memory", "of that after the imports", "made in"), rows))
    print(f"\nthe largest peak is {growth:.1%} above the smallest (at most {GROWTH:.0%} are asked)")
    if path is not None:
        write_json(path, {"growth": growth, "runs": {str(count): one.to_dict() for count, one in found.items()}})
    return int(growth > GROWTH)


def _counts(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) < 2 or not all(part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 500,10000")
    return tuple(map(int, parts))


if __name__ == "__main__":
    sys.exit(main())
