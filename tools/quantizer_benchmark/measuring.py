"""Making all files and measuring them in one interleaved run."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantizer_benchmark.inputs import inputs_for
from quantizer_benchmark.making import Candidate, Judge, Missing, given, made
from quantizer_benchmark.processes import job_for
from quantizer_benchmark.quantizers import AIMET, DYNAMIC, NNCF, OWN, STATIC, fitting

from edgekit.errors import EdgekitError
from edgekit.progress import Progress

if TYPE_CHECKING:  # They need torch, and --help need not wait for it.
    from edgekit.validate import Timing
    from edgekit.workload import Workload

FORMAT, VERSION = "edgekit-quantizers", "1.1"
FP32 = "fp32"
NAMES = (FP32, *(each.name for each in (*STATIC, DYNAMIC, NNCF, AIMET, OWN)))
"""Names of rows that --also cannot take."""

TOOLS = ("edgekit", "onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What a network is made of, as far as it decides what is asked of a quantizer.

    Args:
        operators: of its fp32 graph.
        depthwise: whether it has convolutions of one channel each.
        residual: whether computed values are added to each other.
    """

    operators: frozenset[str]
    depthwise: bool
    residual: bool


def benchmark(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Make the files, measure them all, and return the report.

    With `options.resume`, the report that lies at `options.json` is returned as it is, where it is of the same fp32
    file and conditions and edgekit still makes the same int8 file.

    Raises:
        EdgekitError: a file or the data cannot be taken as given.
    """
    from edgekit.cli.onnx_files import shared_spec
    from edgekit.device import describe
    from edgekit.store import file_sha256
    from edgekit.units import parse_duration_s
    from edgekit.validate import latency_table

    time_s = parse_duration_s(options.time, "--time")
    spec = shared_spec([options.model, *(path for _, path in options.also)])
    if not spec.inputs:
        raise EdgekitError("no inputs", where=str(options.model), rule="what `edgekit export` writes")
    data = inputs_for(options, spec)
    structure = structure_of(options.model)
    conditions = {
        "provider": "cpu",
        "threads": options.threads,
        "batch": len(next(iter(data.timed.values()))),
        "time_s": time_s,
        "seed": options.seed,
        "target": options.device,
        "interleaved": True,
    }
    pythons: Mapping[str, Path] = dict(options.python)
    judge = Judge(spec=spec, data=data, threads=options.threads, seed=options.seed, progress=progress)

    with _folder(options.keep) as folder, job_for(options.model, spec, data.calibration, options.device) as job:
        *others, own = fitting(structure.operators)
        ours = made(own, job, folder / f"{own.name}.onnx", None, judge)
        before = _before(options, conditions, ours, pythons)
        if before is not None:
            return before
        baseline = given(FP32, options.model, judge)
        also = [given(name, path, judge) for name, path in options.also]
        theirs = [made(each, job, folder / f"{each.name}.onnx", pythons.get(each.name), judge) for each in others]
        notes, same = [], None
        if isinstance(ours, Candidate):
            digest = file_sha256(ours.path)
            same = next((each.name for each in also if file_sha256(each.path) == digest), None)
        if same is not None:
            notes.append(f"edgekit's own file of {FP32} is {same}, byte for byte")
        rows = [baseline, *theirs, *([ours] if same is None else []), *also]
        environment = describe()
        timings = latency_table(
            {row.name: row.path for row in rows if isinstance(row, Candidate)},
            data.timed,
            baseline=FP32,
            threads=options.threads,
            time_s=time_s,
            seed=options.seed,
            progress=progress,
        )
        rivals = [row for row in theirs if isinstance(row, Candidate)]
        fastest = max(rivals, key=lambda row: timings[row.name].ratio.value, default=None)
        sharpest = _most_accurate(rivals, data.workload)
        shown = [
            _row(row, timings, fastest) | _metric(row, baseline, sharpest, data.workload, options.seed) for row in rows
        ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "units": _units(data.workload),
        "conditions": conditions,
        "data": dict(data.about),
        "model": {
            "operators": sorted(structure.operators),
            "depthwise": structure.depthwise,
            "residual": structure.residual,
        },
        "baseline": FP32,
        "best_other": None if fastest is None else fastest.name,
        "most_accurate_other": None if sharpest is None else sharpest.name,
        "rows": shown,
        "notes": notes,
        "versions": _versions(),
        "environment": environment,
    }


def structure_of(model: Path) -> Structure:
    """Read it off the fp32 file."""
    import onnx_ir as ir

    nodes = list(ir.load(model).graph)
    grouped = [node for node in nodes if node.op_type == "Conv" and node.attributes.get_int("group", 1) > 1]
    weights = [node.inputs[1] for node in grouped]
    # A depthwise weight is [channels, 1, ...]: one input channel for each group.
    depthwise = any(weight is not None and weight.shape is not None and weight.shape[1] == 1 for weight in weights)
    computed = {id(value) for node in nodes for value in node.outputs}
    residual = any(node.op_type == "Add" and all(id(value) in computed for value in node.inputs) for node in nodes)
    return Structure(operators=frozenset(node.op_type for node in nodes), depthwise=depthwise, residual=residual)


def _before(
    options: argparse.Namespace, conditions: Mapping[str, Any], ours: Candidate | Missing, pythons: Mapping[str, Path]
) -> dict[str, Any] | None:
    """The report of an earlier run, where nothing has changed that `options.resume` looks at."""
    from edgekit.store import file_sha256

    if not (options.resume and options.json is not None and options.json.is_file()):
        return None
    try:
        report: dict[str, Any] = json.loads(options.json.read_text())
        rows = {row["name"]: row for row in report["rows"]}
        same = (
            report["version"] == VERSION
            and report["conditions"] == conditions
            and rows[FP32]["sha256"] == file_sha256(options.model)
            and isinstance(ours, Candidate)
            and rows[ours.name]["sha256"] == file_sha256(ours.path)
            and not any(rows[name]["status"] == "not installed" for name in pythons)
        )
    except (ValueError, KeyError, TypeError):
        return None
    return report if same else None


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Where files are made: a folder that stays, or one that goes."""
    from edgekit.store import writing

    if kept is None:
        with tempfile.TemporaryDirectory(prefix="edgekit-quantizers-") as folder:
            yield Path(folder)
        return
    with writing(kept):
        kept.mkdir(parents=True, exist_ok=True)
    yield kept


def _most_accurate(rivals: Sequence[Candidate], workload: Workload | None) -> Candidate | None:
    """The file of another quantizer with the best metric."""
    if workload is None:
        return None
    sign = 1 if workload.task.higher_is_better else -1
    scored = {row.name: row.judgement.score for row in rivals}
    values = {name: sign * score.metric.value for name, score in scored.items() if score is not None}
    return max((row for row in rivals if row.name in values), key=lambda row: values[row.name], default=None)


def _row(row: Candidate | Missing, timings: Mapping[str, Timing], fastest: Candidate | None) -> dict[str, Any]:
    """What is known of a file without the metric, JSON-ready; its name, and no folder of this machine."""
    from edgekit.store import file_sha256

    about = {"name": row.name, "made_by": row.made_by, "how": row.how}
    if isinstance(row, Missing):
        return {**about, "status": row.status, "reason": row.reason}
    timing = timings[row.name]
    other = None if fastest is None else timings[fastest.name].latency
    return {
        **about,
        "status": "measured",
        "note": "" if row.process is None else row.process.note,
        "file": row.path.name,
        "sha256": file_sha256(row.path),
        "size_bytes": row.path.stat().st_size,
        "latency": timing.latency.to_dict(),
        "ratio_to_fp32": timing.ratio.to_dict(),
        "verdict": timing.verdict,
        "ratio_to_best_other": None if other is None else timing.latency.ratio_to(other).to_dict(),
        "verdict_to_best_other": None if other is None else timing.latency.verdict(other),
        "steps_apart": row.judgement.steps,
        "steps_unknown": row.judgement.unjudged,
        "making": None if row.process is None else row.process.to_dict(),
    }


def _metric(
    row: Candidate | Missing, baseline: Candidate, sharpest: Candidate | None, workload: Workload | None, seed: int
) -> dict[str, Any]:
    """The metric, and the drops paired with the fp32 file and the most accurate other; empty where there is none."""
    from edgekit.validate import compare

    reference = baseline.judgement.score
    if workload is None or isinstance(row, Missing) or row.judgement.score is None or reference is None:
        return {}
    found = compare(row.judgement.score, reference, workload.task, seed=seed)
    rival = None if sharpest is None else sharpest.judgement.score
    behind = None if rival is None else compare(row.judgement.score, rival, workload.task, seed=seed).drop.to_dict()
    return {"metric": row.judgement.score.metric.to_dict(), **found.to_dict(), "drop_to_most_accurate_other": behind}


def _units(workload: Workload | None) -> dict[str, str]:
    units = {
        "latency": "milliseconds a run",
        "ratio_to_fp32": "times as fast as the fp32 file, over rounds that both took part in",
        "ratio_to_best_other": "times as fast as the fastest file of another quantizer, likewise",
        "size_bytes": "bytes",
        "intervals": "95 %, bootstrap",
        "steps_apart": "quantization steps between a kernel and what the file says, at most, on one calibration batch",
        "making": "seconds from the tool imported to the file written; bytes resident; in a process of its own",
    }
    if workload is not None:
        unit = workload.task.unit
        units |= {
            "metric": unit,
            "drop": f"{unit}, below the fp32 file on the same samples",
            "drop_to_most_accurate_other": f"{unit}, below the most accurate file of another quantizer, likewise",
            "agreement": "percent",
        }
    return units


def _versions() -> dict[str, str]:
    found = {}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
