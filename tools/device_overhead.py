"""What edgekit.device adds to ONNX Runtime: to each run, and to the start of a program.

    python tools/device_overhead.py [BUNDLE...] [--out artifacts/device_overhead]

Times `session.run`, `model.run` and `model.predict` (of a prepared tensor, so preprocessing is not in it) in
interleaved rounds, and `import onnxruntime` with and without `import edgekit.device` in fresh processes in turn. What
`predict` makes of the scores an application would have to make itself, so `session.run` with softmax and argmax written
by hand runs beside. Prints what each takes above `session.run` with 95 % intervals, and ends with 1 where `run` or
`predict` lies above the limit. Two tiny networks of 10 and of 1000 classes are made on the spot; they leave the
caches to Python, so give a real one, too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.device import Model, describe, load, measure
from edgekit.device.processing import ClassificationPostprocessing
from edgekit.errors import EdgekitError
from edgekit.stats import Estimate, grouped_median, median
from edgekit.store import write_atomic, write_json

RUN_LIMIT_US, IMPORT_LIMIT_S = 20.0, 0.2
BARE, HAND, OURS = "session.run", "by hand", ("model.run", "model.predict")
PAGE, FIGURES = "README.md", "overhead.json"
IMPORTS = {
    "onnxruntime": "import onnxruntime",
    "onnxruntime and edgekit.device": "import onnxruntime, edgekit.device",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page where `--out` says so; 1 where a limit does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="*", type=Path, help="bundles to run beside two tiny ones")
    parser.add_argument("--time", type=float, default=10.0, help="seconds of measuring for each bundle (default 10)")
    parser.add_argument("--starts", type=int, default=15, help="fresh processes of each kind (default 15)")
    parser.add_argument("--out", type=Path, help=f"folder for {PAGE} and {FIGURES}; nothing is written without")
    options = parser.parse_args(arguments)
    try:
        report = measured(options.bundles, time_s=options.time, starts=options.starts)
    except EdgekitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(lines(report)))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_json(options.out / FIGURES, report)
        write_atomic(options.out / PAGE, page(report))
    return 0 if holds(report) else 1


def measured(bundles: Sequence[Path], *, time_s: float, starts: int) -> dict[str, Any]:
    """All figures, JSON-ready."""
    before = describe()
    with tempfile.TemporaryDirectory(prefix="edgekit-overhead-") as folder:
        tiny = [tiny_bundle(Path(folder) / f"tiny-{classes}.edgekit", classes) for classes in (10, 1000)]
        runs = [run_overhead(load(path), time_s) for path in (*tiny, *bundles)]
    return {
        "runs": runs,
        "import": import_overhead(starts),
        "conditions": {"before": before, "after": describe()},
    }


def run_overhead(model: Model, time_s: float) -> dict[str, Any]:
    """Microseconds that `model.run` and `model.predict` take above the session's own run, paired by round."""
    feeds = dict(model.example())
    names = [output.name for output in model.spec.outputs]
    raw = next(iter(feeds.values())) if len(feeds) == 1 else feeds
    session, labels, after = model.session, model.labels, model.postprocessing
    if not isinstance(after, ClassificationPostprocessing) or after.scores != "softmax":
        raise EdgekitError(
            "another postprocessing",
            where=model.manifest.name,
            rule="classes by softmax, which is written by hand here",
        )
    place = names.index(after.output)

    def by_hand() -> tuple[str, float, np.ndarray]:
        scores = session.run(names, feeds)[place].astype(np.float64)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        best = int(shares[0].argmax())
        return labels[best], float(shares[0, best]), shares[0]

    found = measure(
        {
            BARE: lambda: session.run(names, feeds),
            HAND: by_hand,
            "model.run": lambda: model.run(feeds),
            "model.predict": lambda: model.predict(raw),
        },
        time_s=time_s,
        width=0,
    )
    bare = found[BARE]
    return {
        "name": model.manifest.name,
        "session_us": _scaled(bare.p50, 1e3).to_dict(),
        "above_us": {
            name: grouped_median(1e3 * (found[name].rounds_ms - bare.rounds_ms)).to_dict() for name in (HAND, *OURS)
        },
    }


def import_overhead(starts: int) -> dict[str, Any]:
    """Seconds that `import edgekit.device` adds, in fresh processes in turn, after one that fills the file cache."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for start in range(starts + 1):
        for name, statement in IMPORTS.items():
            spent = import_s(statement)
            if start:
                times[name].append(spent)
    bare, ours = (np.array(values) for values in times.values())
    return {"bare_s": median(bare).to_dict(), "above_s": median(ours - bare).to_dict()}


def import_s(statement: str) -> float:
    """Seconds of an import statement in a fresh process, the interpreter's own start not included."""
    code = f"import time; begin = time.perf_counter(); {statement}; print(time.perf_counter() - begin)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def tiny_bundle(folder: Path, classes: int) -> Path:
    """A bundle of one matrix product, [batch, 16] to [batch, classes]."""
    from onnx import TensorProto, helper, numpy_helper, save

    from edgekit.bundle import Variant, write_bundle
    from edgekit.spec import IOSpec, TensorSpec

    weights = np.random.default_rng(0).standard_normal((16, classes)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    path = folder.with_suffix(".onnx")
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    spec = IOSpec(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 16)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", classes)),),
    )
    labels = [f"class {index}" for index in range(classes)]
    return write_bundle(
        folder, name=f"one product, {classes} classes", variants={"fp32": Variant(path=path)}, spec=spec, labels=labels
    )


def holds(report: Mapping[str, Any]) -> bool:
    """Whether every figure lies within its limit."""
    runs = [row["above_us"][name]["value"] for row in report["runs"] for name in OURS]
    return max(runs) <= RUN_LIMIT_US and report["import"]["above_s"]["value"] <= IMPORT_LIMIT_S


def lines(report: Mapping[str, Any]) -> list[str]:
    """The figures for a terminal."""
    said = []
    for row in report["runs"]:
        said.append(f"{row['name']}: session.run {_shown(row['session_us'], 'µs')}")
        said += [
            f"  {name} {_shown(figure, 'µs', sign='+')}" + (f" (limit {RUN_LIMIT_US:g})" if name in OURS else "")
            for name, figure in row["above_us"].items()
        ]
    start = report["import"]
    said.append(f"import onnxruntime {_shown(start['bare_s'], 's')}")
    said.append(f"  edgekit.device {_shown(start['above_s'], 's', sign='+')} (limit {IMPORT_LIMIT_S:g})")
    return said


def page(report: Mapping[str, Any]) -> str:
    """The README of a report."""
    about, after = report["conditions"]["before"], report["conditions"]["after"]
    runtime = about["versions"].get("onnxruntime", about["versions"].get("onnxruntime-gpu"))
    rows = [
        "| model | `session.run` | softmax and argmax by hand add | `run` adds | `predict` adds | limit |",
        "|---|---|---|---|---|---|",
        *[
            f"| {row['name']} | {_shown(row['session_us'], 'µs')} | "
            + " | ".join(_shown(row["above_us"][name], "µs", sign="+") for name in (HAND, *OURS))
            + f" | {RUN_LIMIT_US:g} µs |"
            for row in report["runs"]
        ],
    ]
    start = report["import"]
    imports = (
        f"`import onnxruntime` takes {_shown(start['bare_s'], 's')}, `import edgekit.device` beside it "
        f"{_shown(start['above_s'], 's', sign='+')} (limit {IMPORT_LIMIT_S:g} s)."
    )
    conditions = (
        "Medians with 95 % intervals. Runs are paired by round in one interleaved measurement, imports by fresh "
        "processes in turn; `predict` takes a prepared tensor, so preprocessing is not in it. One thread of "
        f"{about['cpu']['model']}, onnxruntime {runtime}, load {_load(about)} before and {_load(after)} after. "
        "`python tools/device_overhead.py artifacts/resnet20-cifar10/resnet20.edgekit --out artifacts/device_overhead` "
        "makes it again."
    )
    title = "# What edgekit.device adds to ONNX Runtime"
    return "\n".join([title, "", *rows, "", imports, "", conditions, ""])


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return Estimate(value=factor * estimate.value, low=factor * estimate.low, high=factor * estimate.high, n=estimate.n)


def _shown(figure: Mapping[str, float], unit: str, sign: str = "") -> str:
    digits = 3 if unit == "s" else 1
    value, low, high = (f"{figure[key]:{sign}.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} {unit} [{low}, {high}]"


def _load(about: Mapping[str, Any]) -> str:
    load = about["cpu"]["load_average"]
    return f"{load[0]:g}" if load else "unknown"


if __name__ == "__main__":
    sys.exit(main())
