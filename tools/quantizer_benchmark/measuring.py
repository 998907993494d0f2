"""Making all files and measuring them in one interleaved run."""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantizer_benchmark.faults import aside, said
from quantizer_benchmark.inputs import inputs_for
from quantizer_benchmark.quantizers import DYNAMIC, EDGEKIT, NNCF, OWN, STATIC, Job, Quantizer, fitting

from edgekit.errors import EdgekitError
from edgekit.progress import Progress, Step
from edgekit.spec import Feeds, IOSpec

if TYPE_CHECKING:  # They need torch, and --help need not wait for it.
    from edgekit.validate import Score, Timing
    from edgekit.workload import Workload

FP32, GIVEN = "fp32", "given"
NAMES = (FP32, *(each.name for each in (*STATIC, DYNAMIC, NNCF, OWN)))
"""Names of rows that --also cannot take."""


TOOLS = ("edgekit", "onnxruntime", "onnxruntime-gpu", "nncf", "onnx", "numpy", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file that runs, with its score where there is a metric."""

    name: str
    made_by: str
    how: str
    path: Path
    score: Score | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A quantizer that made no file that runs, and why."""

    name: str
    made_by: str
    how: str
    status: str
    reason: str


def benchmark(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Make the files, measure them all, and return the report.

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

    def judge(path: Path) -> Score | None:
        _run_once(path, data.timed, options.threads)
        return _score(path, data.workload, spec, options, progress)

    with _folder(options.keep) as folder:
        baseline = _given(FP32, options.model, judge)
        also = [_given(name, path, judge) for name, path in options.also]
        job = Job(
            model=options.model, spec=spec, calibration=data.calibration, target=options.device, progress=progress
        )
        made = [_made(quantizer, job, folder, judge) for quantizer in fitting(options.model)]
        notes = []
        if isinstance(made[-1], Candidate):
            digest = file_sha256(made[-1].path)
            same = next((each.name for each in also if file_sha256(each.path) == digest), None)
            if same is not None:
                notes.append(f"edgekit's own file of {FP32} is {same}, byte for byte")
                made.pop()
        rows = [baseline, *made, *also]
        files = {row.name: row.path for row in rows if isinstance(row, Candidate)}
        environment = describe()
        timings = latency_table(
            files,
            data.timed,
            baseline=FP32,
            threads=options.threads,
            time_s=time_s,
            seed=options.seed,
            progress=progress,
        )
        best = max(
            (row.name for row in made if isinstance(row, Candidate) and row.made_by != EDGEKIT),
            key=lambda name: timings[name].ratio.value,
            default=None,
        )
        shown = [_row(row, timings, best) | _drop(row, baseline, data.workload, options.seed) for row in rows]
    return {
        "format": "edgekit-quantizers",
        "version": "1.0",
        "units": _units(data.workload),
        "conditions": {
            "provider": "cpu",
            "threads": options.threads,
            "batch": len(next(iter(data.timed.values()))),
            "time_s": time_s,
            "seed": options.seed,
            "interleaved": True,
        },
        "data": dict(data.about),
        "baseline": FP32,
        "best_other": best,
        "rows": shown,
        "notes": notes,
        "versions": _versions(),
        "environment": environment,
    }


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


def _given(name: str, path: Path, judge: Callable[[Path], Score | None]) -> Candidate:
    try:
        return Candidate(name=name, made_by=GIVEN, how="", path=path, score=judge(path))
    except EdgekitError:
        raise
    except Exception as error:
        raise EdgekitError(
            f"ONNX Runtime does not run it: {said(error)}",
            where=str(path),
            rule="an ONNX file that takes the inputs of the fp32 file",
            way_out="try `edgekit bench` on it alone",
        ) from error


def _made(quantizer: Quantizer, job: Job, folder: Path, judge: Callable[[Path], Score | None]) -> Candidate | Missing:
    """Make the file and try it; whatever goes wrong is the quantizer's row, and the others go on."""
    path = folder / f"{quantizer.name}.onnx"
    about = {"name": quantizer.name, "made_by": quantizer.made_by, "how": quantizer.how}
    if importlib.util.find_spec(quantizer.made_by) is None:
        return Missing(**about, status="not installed", reason=quantizer.install)
    job.progress(Step(f"making {quantizer.name}", 0, 1))
    try:
        with aside():
            note = quantizer.make(job, path)
            score = judge(path)
    except Exception as error:  # noqa: BLE001 - other people's quantizers raise anything
        return Missing(**about, status="failed", reason=said(error))
    job.progress(Step(f"making {quantizer.name}", 1, 1))
    return Candidate(**about, path=path, score=score, note=note)


def _run_once(path: Path, feeds: Feeds, threads: int) -> None:
    from edgekit.device.session import open_session, runtime

    options = runtime().RunOptions()
    options.log_severity_level = 4  # What fails is raised; it need not be printed, too.
    open_session(path, threads=threads).run(None, dict(feeds), options)


def _score(
    path: Path, workload: Workload | None, spec: IOSpec, options: argparse.Namespace, progress: Progress
) -> Score | None:
    if workload is None:
        return None
    from edgekit.validate import score

    return score(
        path,
        workload.splits.selection,
        workload.task,
        spec=spec,
        threads=options.threads,
        seed=options.seed,
        progress=progress,
    )


def _row(row: Candidate | Missing, timings: Mapping[str, Timing], best: str | None) -> dict[str, Any]:
    """What is known of a file without the metric, JSON-ready; its name, and no folder of this machine."""
    from edgekit.store import file_sha256

    about = {"name": row.name, "made_by": row.made_by, "how": row.how}
    if isinstance(row, Missing):
        return {**about, "status": row.status, "reason": row.reason}
    timing = timings[row.name]
    other = None if best is None else timings[best].latency
    return {
        **about,
        "status": "measured",
        "note": row.note,
        "file": row.path.name,
        "sha256": file_sha256(row.path),
        "size_bytes": row.path.stat().st_size,
        "latency": timing.latency.to_dict(),
        "ratio_to_fp32": timing.ratio.to_dict(),
        "verdict": timing.verdict,
        "ratio_to_best_other": None if other is None else timing.latency.ratio_to(other).to_dict(),
        "verdict_to_best_other": None if other is None else timing.latency.verdict(other),
    }


def _drop(row: Candidate | Missing, baseline: Candidate, workload: Workload | None, seed: int) -> dict[str, Any]:
    """The metric, and the drop paired with the fp32 file; empty where there is none."""
    from edgekit.validate import compare

    if workload is None or isinstance(row, Missing) or row.score is None or baseline.score is None:
        return {}
    found = compare(row.score, baseline.score, workload.task, seed=seed)
    return {"metric": row.score.metric.to_dict(), **found.to_dict()}


def _units(workload: Workload | None) -> dict[str, str]:
    units = {
        "latency": "milliseconds a run",
        "ratio_to_fp32": "times as fast as the fp32 file, over rounds that both took part in",
        "ratio_to_best_other": "times as fast as the fastest file of another quantizer, likewise",
        "size_bytes": "bytes",
        "intervals": "95 %, bootstrap",
    }
    if workload is not None:
        unit = workload.task.unit
        units |= {"metric": unit, "drop": f"{unit}, below the fp32 file on the same samples", "agreement": "percent"}
    return units


def _versions() -> dict[str, str]:
    found = {}
    for name in TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
