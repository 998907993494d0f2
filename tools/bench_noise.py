"""Whether `edgekit bench` sees what is there, and nothing else, a hundred times each.

* an identical file under two names has to come out as *no measurable difference* in at least 95 of 100,
* the same file with 3 % more work in its graph has to come out as *slower* in at least 90 of 100.

    python tools/bench_noise.py                    # 100 repetitions, 15 to 40 minutes, by how noisy the machine is
    python tools/bench_noise.py --repetitions 5    # a try; the same command with more goes on from it
    python tools/bench_noise.py --table            # measure nothing, write the page again

The slower file has 69 layers and not 67. Each repetition is one whole benchmark of all three files (fresh processes,
random order), as a user would run it, and is kept at once: a run that was stopped goes on where it was. Report and page
go to artifacts/bench_noise; the exit code is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgekit.device import describe
from edgekit.device.benchmark import benchmark
from edgekit.device.candidates import Candidate
from edgekit.device.latency import SAME
from edgekit.errors import EdgekitError
from edgekit.stats import Estimate
from edgekit.store import write_atomic, write_json
from edgekit.units import format_duration

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "artifacts" / "bench_noise"
REPORT, PAGE = "noise.json", "README.md"
KINDS = ("identical", "slower")
WANTED = {"identical": "no measurable difference", "slower": "slower"}
GOALS = {"identical": 0.95, "slower": 0.90}
WIDTH, DEPTH, EXTRA_LAYERS = 96, 67, 2
"""Of the network: 67 layers, 1 ms or so in one thread. The slower one has two more of the same kind, 3 %: work of
another kind takes 2 % on one day and 3 % on another, since what slows a machine down slows not all work down alike."""
TIME_S, STARTS, WARMUP_S = 9.0, 10, 0.05
"""Of each repetition, and how many processes each file has at least."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100, help="of the benchmark (default 100)")
    parser.add_argument("--time", type=float, default=TIME_S, help=f"seconds to measure in each (default {TIME_S})")
    parser.add_argument("--starts", type=int, default=STARTS, help=f"processes of each file (default {STARTS})")
    parser.add_argument("--out", type=Path, default=OUT, help="where it goes (default artifacts/bench_noise)")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run has kept")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the page again")
    options = parser.parse_args(arguments)
    path = options.out / REPORT
    try:
        if options.table:
            report = json.loads(path.read_text())
        else:
            known = json.loads(path.read_text()) if path.is_file() and not options.fresh else None
            report = repeated(known, options.repetitions, time_s=options.time, starts=options.starts, path=path)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    write_atomic(options.out / PAGE, page(report))
    for kind in KINDS:
        right, n = counted(report, kind)
        print(f"{kind}: {right} of {n} came out as {WANTED[kind]} (goal: {GOALS[kind]:.0%})")
    return 0 if all(holds(report, kind) for kind in KINDS) else 1


def repeated(
    known: Mapping[str, Any] | None, repetitions: int, *, time_s: float, starts: int, path: Path
) -> dict[str, Any]:
    """The report with `repetitions` of each kind; what `known` has is not done again, and each new one is kept."""
    settings = {"time_s": time_s, "starts": starts, "extra": EXTRA_LAYERS / DEPTH, "smallest_effect": SAME}
    if known is not None and known["settings"] != settings:
        raise EdgekitError(
            f"the kept repetitions were made with {known['settings']}",
            where=str(path),
            rule=f"all with the same settings, {settings}",
            way_out="--fresh forgets them",
        )
    report: dict[str, Any] = {"settings": settings, "rows": [], **(known or {})}
    report.setdefault("conditions", {})["before"] = report.get("conditions", {}).get("before") or describe()
    with tempfile.TemporaryDirectory(prefix="edgekit-noise-") as folder:
        files = make_files(Path(folder))
        begin = time.monotonic()
        missing = [
            number for number in range(repetitions) if not any(row["number"] == number for row in report["rows"])
        ]
        for made, number in enumerate(missing, 1):
            found = benchmark(
                [Candidate(name=name, path=str(path)) for name, path in files.items()],
                time_s=time_s,
                starts=starts,
                warmup_s=WARMUP_S,
                seed=number,
                placing=False,
            )
            if found.failed:
                raise found.failed[0].reason
            rows = found.rows[1:]
            report["rows"] += [
                {
                    "number": number,
                    "kind": row.candidate.name,
                    "verdict": row.verdict,
                    "ratio": cast(Estimate, row.ratio).to_dict(),
                    "starts": found.starts,
                    "p50_ms": [each.latency.p50.value for each in (found.rows[0], row)],
                }
                for row in rows
            ]
            report["conditions"]["after"] = describe()
            write_json(path, report)
            left = (time.monotonic() - begin) / made * (len(missing) - made)
            shown = ", ".join(f"{row.candidate.name} {_shown(cast(Estimate, row.ratio))} {row.verdict}" for row in rows)
            print(f"{number + 1:3d} {shown}; {found.starts} starts; {format_duration(left)} left", flush=True)
    return report


def make_files(folder: Path) -> dict[str, Path]:
    """The files by name."""
    files = {name: folder / f"{name}.onnx" for name in ("first", *KINDS)}
    for name, path in files.items():
        write_model(path, DEPTH + EXTRA_LAYERS if name == "slower" else DEPTH)
    return files


def write_model(path: Path, depth: int) -> None:
    """A network of `depth` layers, all alike: a matrix product and a tanh."""
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
    nodes, last = [], "x"
    for index in range(depth):
        nodes += [
            helper.make_node("MatMul", [last, "w"], [f"m{index}"]),
            helper.make_node("Tanh", [f"m{index}"], [f"t{index}"]),
        ]
        last = f"t{index}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDTH, WIDTH]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "noise", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def counted(report: Mapping[str, Any], kind: str) -> tuple[int, int]:
    """How many repetitions came out as they should, and how many there are."""
    verdicts = [row["verdict"] for row in report["rows"] if row["kind"] == kind]
    return verdicts.count(WANTED[kind]), len(verdicts)


def holds(report: Mapping[str, Any], kind: str) -> bool:
    """Whether a goal is met."""
    right, n = counted(report, kind)
    return n > 0 and right >= GOALS[kind] * n


def page(report: Mapping[str, Any]) -> str:
    """The README of a report."""
    about, settings = report["conditions"]["before"], report["settings"]
    runtime = about["versions"].get("onnxruntime", about["versions"].get("onnxruntime-gpu"))
    after, few = report["conditions"].get("after", about), settings["starts"]
    introduction = (
        "`edgekit bench` on three files, again and again: a network, a copy of the file, and the same "
        f"network with {settings['extra']:.0%} more layers of the same kind. Each repetition is a whole benchmark: "
        f"{few} to {max((row['starts'] for row in report['rows']), default=few)} fresh processes of each file, "
        f"{settings['time_s']:g} s of measuring at most, random order. One thread of {about['cpu']['model']}, "
        f"onnxruntime {runtime}, load {_load(about)} before and {_load(after)} after. "
        "`python tools/bench_noise.py` makes it again."
    )
    meaning = (
        "A ratio is how many times faster than the first file the second is, paired by round: the median of processes. "
        "Its interval comes from a bootstrap over processes, and is not narrower than that over rounds alone; a "
        f"verdict needs the whole interval beyond {settings['smallest_effect']:.0%}. For the slower file the truth is "
        "taken to be the median of all repetitions."
    )
    lines = [
        "# Does the benchmark see what is there?",
        "",
        introduction,
        "",
        "| file | should be | was | ratios: median [5 %, 95 %] | intervals that hold the truth | goal |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        rows = [row for row in report["rows"] if row["kind"] == kind]
        if not rows:
            continue
        right, n = counted(report, kind)
        values = [row["ratio"]["value"] for row in rows]
        low, mid, high = np.quantile(values, [0.05, 0.5, 0.95])
        truth = 1.0 if kind == "identical" else mid
        holding = sum(row["ratio"]["low"] <= truth <= row["ratio"]["high"] for row in rows)
        verdicts = Counter(row["verdict"] for row in rows)
        others = ", ".join(f"{count} {name}" for name, count in verdicts.most_common() if name != WANTED[kind])
        was = f"{right} of {n}{f' ({others})' if others else ''}"
        goal = f"{GOALS[kind]:.0%}: {'met' if holds(report, kind) else 'MISSED'}"
        cells = (kind, WANTED[kind], was, f"{mid:.4f} [{low:.4f}, {high:.4f}]", f"{holding} of {n}", goal)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", meaning, ""])


def _shown(ratio: Estimate) -> str:
    return f"{ratio.value:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"


def _load(about: Mapping[str, Any]) -> str:
    load = about["cpu"]["load_average"]
    return f"{load[0]:g}" if load else "unknown"


if __name__ == "__main__":
    sys.exit(main())
