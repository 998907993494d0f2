"""Every family of networks through `edgekit compress`, in one table: what it was, what came out, what that cost.

    python tools/zoo_table.py                       # all that are trained, one to three minutes each
    python tools/zoo_table.py decoder gan_generator # these
    python tools/zoo_table.py --table               # measure nothing, write the page again

The networks are those of tools/reference/catalogue.py; each is trained by a command of its project. Metric, drop,
latency and size are those of the run's report: the test split, scored once; latency of one thread, batch 1, interleaved
with the fp32 file. Some networks have a figure besides, which is taken of both files in ONNX Runtime: mIoU, mAP,
perplexity, the area under the ROC curve, a Fréchet distance, what a policy earns. Runs stay in edgekit-runs/zoo and go
on where they were interrupted; reports and page go to artifacts/zoo.

Exit codes: 0 done; 2 wrong command line; 4 a network could not be compressed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reference.catalogue import REFERENCES, Reference

from edgekit.device.session import open_session
from edgekit.report import markdown
from edgekit.store import write_atomic, write_json
from edgekit.units import format_bytes, parse_duration_s
from edgekit.workload import load_callable

ROOT = Path(__file__).resolve().parents[1]
OUT, RUNS = ROOT / "artifacts" / "zoo", ROOT / "edgekit-runs" / "zoo"
SLICE = 250
"""Samples that go through a file at once."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(REFERENCES)}; all that are trained")
    parser.add_argument("--time", default="90s", help="how long each may take (default 90s)")
    parser.add_argument("--out", type=Path, default=OUT, help="where reports and page go (default artifacts/zoo)")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the page of the reports there are")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(REFERENCES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(REFERENCES)}")
    time_s, failed = parse_duration_s(options.time, "--time"), []
    if not options.table:
        for name in options.names or [name for name, each in REFERENCES.items() if each.is_trained]:
            print(f"== {name}", flush=True)
            if not compressed(REFERENCES[name], time_s, options.out / f"{name}.json"):
                failed.append(name)
    write_atomic(options.out / "README.md", page(options.out))
    if failed:
        print(f"not compressed: {', '.join(failed)}", file=sys.stderr)
    return 4 if failed else 0


def compressed(reference: Reference, time_s: float, result: Path) -> bool:
    """Compress a network and keep what the table needs; False where that failed."""
    folder = RUNS / f"{reference.name}-{time_s:.0f}s"
    words = [reference.model, *reference.workload, *reference.recovery, "--max-drop", f"{reference.max_drop:g}"]
    words += ["--time", f"{time_s:.0f}s", "--name", reference.name, "--out", str(folder), "--threads", "1"]
    done = subprocess.run([sys.executable, "-m", "edgekit", "compress", *words], cwd=ROOT, check=False)
    if done.returncode not in {0, 3}:
        return False
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    stages = {row["stage"]: row for row in report["stages"]}
    before, after = stages["fp32"], stages[report["verdict"]["chosen"]]
    figures = {side: figures_of(reference, Path(row["file"])) for side, row in (("before", before), ("after", after))}
    write_json(
        result,
        {
            "name": reference.name,
            "kind": reference.kind,
            "family": reference.family,
            "data": reference.test,
            "metric": report["metric"],
            "unit": report["unit"],
            "max_drop": reference.max_drop,
            "time_s": time_s,
            "seconds": sum(report["seconds"].values()),
            "verdict": report["verdict"],
            # Where the checkout lay is nobody's business.
            "before": {**before, "file": os.path.relpath(before["file"], ROOT)},
            "after": {**after, "file": os.path.relpath(after["file"], ROOT)},
            "figures": figures,
            "environment": report["environment"]["before"],
        },
    )
    return True


def figures_of(reference: Reference, file: Path) -> dict[str, float]:
    """What the project says of a file besides the metric; nothing where it says nothing."""
    if not reference.figures:
        return {}
    project, _, function = reference.figures.partition(":")
    figures: Callable[[Callable[..., Any]], dict[str, float]] = load_callable(f"{ROOT / project}:{function}")
    session = open_session(file, threads=1)

    def run(feeds: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        # The projects name their inputs as forward does; files of other tools may not.
        named = dict(zip([each.name for each in session.get_inputs()], feeds.values(), strict=True))
        count = len(next(iter(named.values())))
        parts = [
            session.run(None, {name: value[start : start + SLICE] for name, value in named.items()})
            for start in range(0, count, SLICE)
        ]
        return tuple(np.concatenate(each) for each in zip(*parts, strict=True))

    return figures(run)


def page(out: Path) -> str:
    """The table of the reports in `out`."""
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*.json")]
    order = list(REFERENCES)
    rows.sort(key=lambda row: order.index(row["name"]))
    headers = (
        "network",
        "for",
        "metric",
        "before",
        "after",
        "drop [95 %] (limit)",
        "vs fp32 [95 %]",
        "size",
        "parameters",
        "what ships",
    )
    return f"{PREFACE}\n{markdown(headers, [_row(row) for row in rows])}\n\n{_conditions(rows)}\n"


PREFACE = """# Every family of networks

Written by `python tools/zoo_table.py`, whose help says how. A figure besides the metric stands behind it. Where int8
does not pay, the fp32 file ships, pruned or not.
"""


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    before, after = row["before"], row["after"]
    drop, ratio = after["drop"], after["ratio_to_fp32"]
    extra = {
        side: "".join(f"; {name} {value:.4g}" for name, value in row["figures"][side].items())
        for side in ("before", "after")
    }
    shown = {side: f"{row[side]['metric']['value']:.4g}{extra[side]}" for side in ("before", "after")}
    return (
        row["name"],
        row["kind"],
        f"{row['metric']}, {row['unit']}",
        shown["before"],
        shown["after"],
        f"{drop['value']:.3g} [{drop['low']:.3g}, {drop['high']:.3g}] ({row['max_drop']:g})",
        f"{ratio['value']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}]",
        f"{format_bytes(before['size_bytes'])} → {format_bytes(after['size_bytes'])}",
        f"{before['parameters']:,} → {after['parameters']:,}",
        row["verdict"]["chosen"] + ("" if row["verdict"]["holds"] else ": budget missed"),
    )


def _conditions(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "Nothing has been measured."
    about, seconds = rows[0]["environment"], [row["seconds"] for row in rows]
    return (
        f"One thread of {about['cpu']['model']} ({about['isa_target']}), onnxruntime "
        f"{about['versions'].get('onnxruntime')}, torch {about['versions'].get('torch')}; each run was given "
        f"{rows[0]['time_s']:g} s and took {min(seconds):.0f} to {max(seconds):.0f} s."
    )


if __name__ == "__main__":
    sys.exit(main())
