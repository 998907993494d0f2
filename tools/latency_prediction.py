"""Predict the latency of whole networks from their pieces, measure it, and publish by how much the two differ.

    python tools/latency_prediction.py                       # the reference networks, with new weights
    python tools/latency_prediction.py a.onnx b.onnx         # other fp32 files
    python tools/latency_prediction.py --table               # measure nothing, write the page again

Speed does not depend on weights, so that none have to be trained, nor on what int8 ranges are from: each fp32 file gets
an int8 twin by random data. A network is timed as a whole before and after its pieces, and all of it again if those
timings differ by more than 8 %, which tells of other work on the machine. Report and picture of each kind of processor,
and the page of all, go to artifacts/latency_prediction.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.device.environment import processor_in
from edgekit.errors import EdgekitError
from edgekit.store import write_atomic, write_json

if TYPE_CHECKING:  # --help need not wait for them.
    from edgekit.device.costs import MeasuredCosts
    from edgekit.device.request import Timed

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "artifacts" / "latency_prediction"
REPORT, PAGE, PICTURE = "predictions", "README.md", "latency_prediction"
PRECISIONS = ("fp32", "int8")
GOAL = 0.10
INDEXES = 4
"""Indexes up to this are in every vocabulary."""
QUIET, ATTEMPTS = 0.08, 2
"""Whole timings that differ by more tell of other work on the machine: the network and its pieces are timed again."""
BATCH, BATCHES = 8, 4
WHOLES = (2, 3)
"""How often a network is timed as a whole before and after its pieces; the fastest counts."""
COLOURS = {"fp32": ("#0072b2", "o"), "int8": ("#d55e00", "s")}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FP32.onnx", help="fp32 files")
    parser.add_argument("--time", type=float, default=4.0, help="seconds for the pieces of a network (default 4)")
    parser.add_argument(
        "--whole", type=float, default=0.5, help="seconds for a whole network, five times (default 0.5)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where it goes (default artifacts/latency_prediction)")
    parser.add_argument("--table", action="store_true", help="measure nothing, write page and picture again")
    options = parser.parse_args(arguments)
    try:
        if not options.table:
            _measure(options)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    publish(options.out)
    return 0


def _measure(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="edgekit-networks-") as folder:
        files = {_name(path): path for path in options.files} or exported(Path(folder))
        for report in measured(files, time_s=options.time, whole_s=options.whole):
            write_json(options.out / f"{REPORT}-{_target(report)}.json", report)


def exported(folder: Path) -> dict[str, Path]:
    """The fp32 files of the reference networks that are compared elsewhere; by name."""
    import torch
    from reference.catalogue import COMPARED, HERE

    sys.path.insert(0, str(HERE))
    weights, files = folder / "weights", dict[str, Path]()
    weights.mkdir()
    for name, reference in COMPARED.items():
        if reference.training:  # The user project comes with its own.
            torch.manual_seed(0)
            network = importlib.import_module(Path(reference.training[0]).stem).RECIPES[name].network()
            torch.save(network.state_dict(), weights / f"{reference.weights}.pt")
        files[name] = folder / f"{name}.onnx"
        words = [sys.executable, "-m", "edgekit", "export", reference.model, *reference.workload, "--out", files[name]]
        found = {**os.environ, "EDGEKIT_REFERENCE_WEIGHTS": str(weights)}
        subprocess.run(words, cwd=ROOT, env=found, check=True)
    return files


def publish(out: Path) -> None:
    """Write the page and the pictures of the reports in `out`."""
    reports = read(out)
    write_atomic(out / PAGE, page(reports).encode())
    for report in reports:
        write_atomic(out / f"{PICTURE}-{_target(report)}.svg", picture(report))


def read(out: Path) -> list[dict[str, Any]]:
    """The reports in `out`, one for each kind of processor."""
    return [json.loads(path.read_text()) for path in sorted(out.glob(f"{REPORT}-*.json"), reverse=True)]


def _target(report: Mapping[str, Any]) -> str:
    return str(report["conditions"]["before"]["isa_target"])


def measured(files: Mapping[str, Path], *, time_s: float, whole_s: float) -> Iterator[dict[str, Any]]:
    """The report so far, after each network: for each file and its int8 twin what was predicted and measured."""
    from edgekit.device import describe
    from edgekit.profiling import graphs, pieces, predict

    rows: list[dict[str, Any]] = []
    before = describe()
    with tempfile.TemporaryDirectory(prefix="edgekit-prediction-") as folder:
        for name, precision, path in _in_both_forms(files, Path(folder)):
            found = pieces(path)
            attempt, wholes, costs = _attempted(path, graphs(found), time_s, whole_s)
            prediction, us = predict(found, costs), min(wholes)
            rows.append(
                {
                    "name": name,
                    "precision": precision,
                    "measured_us": [round(each, 2) for each in wholes],
                    "predicted_us": round(prediction.us, 2),
                    "interval_us": [round(prediction.low, 2), round(prediction.high, 2)],
                    "error": round(prediction.us / us - 1, 4),
                    "missing": list(prediction.missing),
                    "pieces": sum(piece.count for piece in found),
                    "graphs": len(graphs(found)),
                    "attempts": attempt,
                }
            )
            about = f"{name:<16} {precision} measured {us:8.1f} us, predicted {prediction.us:8.1f} us"
            print(f"{about} ({rows[-1]['error']:+.1%}), attempt {attempt}", flush=True)
            yield {"threads": 1, "conditions": {"before": before, "after": describe()}, "rows": rows}


def errors(report: Mapping[str, Any], precision: str) -> list[float]:
    """Of all networks in one precision, without sign."""
    return [abs(row["error"]) for row in report["rows"] if row["precision"] == precision]


def page(reports: Sequence[Mapping[str, Any]]) -> str:
    """The README of reports."""
    about = (
        "The latency of whole networks, predicted from small graphs of their operators (`edgekit profile`), against "
        "what ONNX Runtime takes for them, batch 1. No correction is learnt from other networks. "
        "`python tools/latency_prediction.py` makes it again."
    )
    scatter = (
        "Each network was timed as a whole five times, before and after its pieces, each time in a session of its own; "
        "the fastest counts, and of each piece the faster of two sweeps: other work on the machine only ever adds. "
        f"Where the five differed by more than {QUIET:.0%}, network and pieces were timed again, {ATTEMPTS} times at "
        "most; the last attempt is shown, whatever its error. Without these precautions, some networks were off by 15 "
        "to 40 % on this shared machine, other ones in each run: costs taken on a busy device predict a busy device."
    )
    lines = ["# Predicted and measured latency", "", about, "", scatter]
    for report in reports:
        lines += ["", *_section(report)]
    return "\n".join(lines) + "\n"


def _section(report: Mapping[str, Any]) -> list[str]:
    about = report["conditions"]["before"]
    threads = f"{report['threads']} thread{'' if report['threads'] == 1 else 's'}"
    lines = [
        f"## {processor_in(about)}",
        "",
        f"{threads}, onnxruntime {about['versions']['onnxruntime']}.",
        "",
        "| | networks | median error | worst error |",
        "|---|---|---|---|",
    ]
    for precision in PRECISIONS:
        found = errors(report, precision)
        lines.append(f"| {precision} | {len(found)} | {statistics.median(found):.1%} | {max(found):.1%} |")
    lines += [
        "",
        f"![predicted against measured latency]({PICTURE}-{_target(report)}.svg)",
        "",
        "| network | precision | measured (slowest) | predicted | error | pieces | graphs timed | attempts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        wholes = row["measured_us"]
        missed = " **over the goal**" if abs(row["error"]) > GOAL else ""
        cells = (
            row["name"],
            row["precision"],
            f"{min(wholes):.1f} µs ({max(wholes):.1f})",
            f"{row['predicted_us']:.1f} µs",
            f"{row['error']:+.1%}{missed}",
            str(row["pieces"]),
            str(row["graphs"]),
            str(row["attempts"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def picture(report: Mapping[str, Any]) -> bytes:
    """Predicted against measured, with the band of the goal, as an SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "edgekit", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(5.2, 5), layout="constrained")
        axes = figure.add_subplot()
        every = [min(row["measured_us"]) for row in report["rows"]]
        ends = np.array([min(every) * 0.8, max(every) * 1.25])
        axes.fill_between(ends, ends * (1 - GOAL), ends * (1 + GOAL), color="#dddddd", label=f"within {GOAL:.0%}")
        axes.plot(ends, ends, color="#888888", linewidth=0.8)
        for precision, (colour, marker) in COLOURS.items():
            rows = [row for row in report["rows"] if row["precision"] == precision]
            measured_us = [min(row["measured_us"]) for row in rows]
            predicted_us = [row["predicted_us"] for row in rows]
            axes.scatter(measured_us, predicted_us, s=26, color=colour, marker=marker, label=precision, zorder=3)
        axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured, µs", ylabel="predicted, µs")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(LogLocator(subs=(2, 5)))
            axis.set_minor_formatter("{x:g}")
        axes.legend(frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _in_both_forms(files: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, str, Path]]:
    for name, path in files.items():
        yield name, "fp32", path
        yield name, "int8", _twin(path, folder / f"{name}.int8.onnx")


def _twin(path: Path, out: Path) -> Path:
    import onnx_ir as ir

    from edgekit.export import spec_of
    from edgekit.quantize import quantize

    spec, rng = spec_of(ir.load(path)), np.random.default_rng(0)
    batches = [
        {
            tensor.name: _numbers(rng, tensor.dtype, [BATCH, *(int(size) for size in tensor.shape[1:])])
            for tensor in spec.inputs
        }
        for _ in range(BATCHES)
    ]
    quantize(path, batches, out, spec=spec, ranges="minmax", equalization=False, bias_correction=False)
    return out


def _numbers(rng: np.random.Generator, dtype: str, shape: Sequence[int]) -> np.ndarray:
    if np.issubdtype(np.dtype(dtype), np.floating):
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, INDEXES, shape).astype(dtype)


def _attempted(
    path: Path, graphs: Sequence[Timed], time_s: float, whole_s: float
) -> tuple[int, list[float], MeasuredCosts]:
    """Time a network and its pieces until the machine is quiet, or as often as is allowed."""
    from edgekit.device.timing import time_graphs

    attempt, wholes = 0, [0.0, 1.0]
    while attempt < ATTEMPTS and max(wholes) > min(wholes) * (1 + QUIET):
        attempt += 1
        wholes = [_whole_us(path, whole_s) for _ in range(WHOLES[0])]
        costs = time_graphs(graphs, keep=lambda _: None, time_s=time_s)
        wholes += [_whole_us(path, whole_s) for _ in range(WHOLES[1])]
    return attempt, wholes, costs


def _whole_us(path: Path, time_s: float) -> float:
    from edgekit.device import measure
    from edgekit.device.session import open_session

    session = open_session(path, threads=1)
    rng = np.random.default_rng(0)
    kinds = {"tensor(float)": "float32", "tensor(int64)": "int64", "tensor(int32)": "int32"}
    feeds = {
        given.name: _numbers(rng, kinds[given.type], [size if isinstance(size, int) else 1 for size in given.shape])
        for given in session.get_inputs()
    }
    calls = {"whole": lambda: session.run(None, feeds)}
    return 1e3 * measure(calls, time_s=time_s, width=0)["whole"].p50.value


def _name(path: Path) -> str:
    """A file's own name, or its folder's where all files are called fp32."""
    return path.parent.name if path.stem == "fp32" else path.stem


if __name__ == "__main__":
    sys.exit(main())
