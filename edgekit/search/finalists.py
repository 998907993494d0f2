"""The end of a search: full training for the few that are left, their real files, and the front of these."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from time import monotonic
from typing import Any

from edgekit.device.environment import describe
from edgekit.errors import QuantizeError
from edgekit.export import Exported
from edgekit.progress import Step
from edgekit.quantize import Quantized, quantize
from edgekit.search.asked import Values
from edgekit.search.front import Point, front
from edgekit.search.improving import improved
from edgekit.search.record import Member
from edgekit.search.site import Site
from edgekit.search.trainings import FULL
from edgekit.spec import IOSpec
from edgekit.store import file_sha256, write_json
from edgekit.validate import Score, calibration_feeds, compare, first_feeds, latency_table, validate
from edgekit.validate.behaviour import Figures

MODEL = "model.onnx"
REFERENCE = "reference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An ONNX file of a finalist, and the fp32 file that it was made from, or is."""

    name: str
    path: Path
    source: Path
    spec: IOSpec
    sha256: str
    precision: str
    choices: Values
    rungs: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What the end of a search comes to: the front, the points that are not on it, and the reference on test."""

    members: tuple[Member, ...]
    others: tuple[Point, ...]
    reference: Mapping[str, Any]
    environment: Mapping[str, Any]


def finalists_of(points: Sequence[Point], count: int) -> tuple[Point, ...]:
    """Up to `count` points of the front: both its ends, and the rest evenly between them.

    >>> from edgekit.stats import Estimate
    >>> def point(ms):
    ...     drop = Estimate(value=-ms, low=-ms, high=-ms, n=1)
    ...     return Point(name=str(ms), latency_ms=ms, drop=drop, size_bytes=1)
    >>> [each.name for each in finalists_of([point(ms) for ms in range(1, 8)], 3)]
    ['1', '4', '7']
    """
    best = front(points)
    if len(best) <= count:
        return best
    if count == 1:
        # One alone cannot span the front: the most accurate.
        return (min(best, key=lambda point: (point.drop.value, point.latency_ms)),)
    return tuple(best[round(index * (len(best) - 1) / (count - 1))] for index in range(count))


def end(site: Site, finalists: Mapping[str, Values], *, deadline_s: Callable[[int, float], float]) -> Ended:
    """Train the finalists in full, make and measure their files, and score the front once on the test split.

    Args:
        site: of the search.
        finalists: choices by name.
        deadline_s: seconds for the next training, from how many trainings are left and how many seconds all that is no
            training is expected to take from now on.
    """
    reference, files = _finished(site, finalists, deadline_s)
    points = _measured(site, reference, files)
    gates, changes = site.settings.gates, _changes(site, reference, files)
    broken = {name: gates.broken(figures) for name, figures in changes.items()}
    # A file that breaks a gate must not keep one that holds them all off the front.
    best = front(
        [point for point in points if not gates.broken(changes[point.name], margin=site.settings.margin)]
        or [point for point in points if not broken[point.name]]
        or points
    )
    by_name = {made.name: made for made in files}
    test = _tested(site, reference, [by_name[point.name] for point in best])
    root = site.root.resolve()
    members = tuple(
        Member(
            point=point,
            file=str(by_name[point.name].path.resolve().relative_to(root)),
            source=str(by_name[point.name].source.resolve().relative_to(root)),
            sha256=by_name[point.name].sha256,
            precision=by_name[point.name].precision,
            target=site.settings.target if by_name[point.name].precision == "int8" else "any",
            choices=dict(by_name[point.name].choices),
            test=test["rows"][point.name],
            broken=broken[point.name],
            rungs=by_name[point.name].rungs,
        )
        for point in best
    )
    names = {point.name for point in best}
    return Ended(
        members=members,
        others=tuple(point for point in points if point.name not in names),
        reference={
            "what": "the teacher, fp32" if site.teacher is not None else "the builder's default network, fp32",
            "file": str(reference.path.resolve().relative_to(root)),
            "test": test["rows"][REFERENCE],
        },
        environment=test["environment"],
    )


def _finished(
    site: Site, finalists: Mapping[str, Values], deadline_s: Callable[[int, float], float]
) -> tuple[Made, list[Made]]:
    """The reference's file and those of the finalists, trained, made and scored one after the other.

    So it is known after the first what the rest will take besides training. Without a teacher, the default network is
    trained as well, as the reference.
    """
    count, done, files, spent = len(finalists) + (site.teacher is None), 0, list[Made](), list[float]()

    def trained(values: Values) -> Path:
        nonlocal done
        site.progress(Step("finalists", done, count))
        # As much again as the files take is kept for the test split, beside both measurements of latency.
        rest_s = (count - done + count) * fmean(spent or [0.0]) + 2 * site.settings.latency_time_s
        folder = site.trainings.trained(values, FULL, deadline_s=deadline_s(count - done, rest_s))
        done += 1
        return folder

    def timed(make: Callable[[], Sequence[Made]]) -> Sequence[Made]:
        begin = monotonic()
        made = make()
        for each in made:
            _scored(site, each)
        spent.append(monotonic() - begin)
        return made

    if site.teacher is None:
        folder = trained(site.default)
        network = partial(site.trainings.with_weights, site.default, folder)
        (reference,) = timed(lambda: [_exported(site, REFERENCE, site.default, folder.name, network)])
    else:
        (reference,) = timed(lambda: [_exported(site, REFERENCE, {}, "teacher", lambda: site.teacher)])
    for name, values in finalists.items():
        files += timed(partial(_files, site, name, values, trained(values), reference))
    site.progress(Step("finalists", count, count))
    return reference, files


def _files(site: Site, name: str, values: Values, folder: Path, reference: Made) -> list[Made]:
    """The fp32 file, the int8 file, and a better one where that one alone misses the limits."""
    source = _exported(site, name, values, folder.name, lambda: site.trainings.with_weights(values, folder))
    settings = site.settings

    def make(to: Path) -> None:
        try:
            made = quantize(
                source.path,
                list(calibration_feeds(site.workload, source.spec)),
                to / MODEL,
                spec=source.spec,
                target=settings.target,
                ranges=settings.ranges,
                placement=settings.placed_by,
                threads=settings.threads,
                progress=site.progress,
            )
        except QuantizeError as error:
            write_json(to / "refused.json", str(error))
        else:
            write_json(to / "quantized.json", made.to_dict())

    key = {"source": source.sha256, "ranges": settings.ranges, "placement": settings.placed_by}
    folder = site.stage("quantize", key, make)
    if (folder / "refused.json").is_file():
        return [source]
    quantized = Quantized.from_dict(json.loads((folder / "quantized.json").read_text()), folder)
    int8 = Made(
        name=f"{name}-int8",
        path=quantized.path,
        source=source.path,
        spec=quantized.spec,
        sha256=file_sha256(quantized.path),
        precision="int8",
        choices=values,
    )
    base, found, judge = _scored(site, reference), _scored(site, int8), site.judge
    if judge.holds(judge.judged(found, base)) or not judge.holds(judge.judged(_scored(site, source), base)):
        return [source, int8]
    better, rungs = improved(site, int8.path, quantized, source.path, found=found, reference=base)
    sha256 = file_sha256(better.path)
    if sha256 == int8.sha256:
        return [source, int8]
    return [source, int8, replace(int8, name=f"{name}-improved", path=better.path, sha256=sha256, rungs=rungs)]


def _exported(site: Site, name: str, values: Values, weights: str, model: Callable[[], Any]) -> Made:
    def make(to: Path) -> None:
        exported = site.exported(model(), to / MODEL, progress=site.progress)
        write_json(to / "exported.json", exported.to_dict())

    made = site.stage("export", {"weights": weights}, make)
    exported = Exported.from_dict(json.loads((made / "exported.json").read_text()), made)
    return Made(
        name=name,
        path=exported.path,
        source=exported.path,
        spec=exported.spec,
        sha256=file_sha256(exported.path),
        precision="fp32",
        choices=values,
    )


def _measured(site: Site, reference: Made, files: Sequence[Made]) -> list[Point]:
    """Each file on the selection split in ONNX Runtime, and all of them in one interleaved measurement.

    Where another device counts, latencies are what its costs say.
    """
    workload, settings = site.workload, site.settings

    def time(folder: Path) -> None:
        timings = latency_table(
            {made.name: made.path for made in (reference, *files)},
            first_feeds(workload.splits.selection, reference.spec),
            baseline=REFERENCE,
            threads=settings.threads,
            time_s=settings.latency_time_s,
            seed=settings.seed,
            progress=site.progress,
        )
        base = timings[REFERENCE].latency.p50.value
        write_json(folder / "latency.json", {name: base / timing.ratio.value for name, timing in timings.items()})

    key = {"files": [made.sha256 for made in (reference, *files)], "time": settings.latency_time_s}
    if site.speeds.book is not None:
        latencies = site.speeds.predicted_ms({made.name: made.path for made in files}, reference.spec)
    else:
        latencies = json.loads((site.stage("latency", key, time) / "latency.json").read_text())
    base = _scored(site, reference)
    return [
        Point(
            name=made.name,
            latency_ms=latencies[made.name],
            drop=compare(_scored(site, made), base, workload.task).drop,
            size_bytes=made.path.stat().st_size,
        )
        for made in files
    ]


def _scored(site: Site, made: Made) -> Score:
    """A file's answers on the selection split."""

    def make(folder: Path) -> None:
        site.judge.score(made.path, made.spec, target=site.settings.target).save(folder)

    return Score.load(site.stage("score", {"file": made.sha256}, make))


def _changes(site: Site, reference: Made, files: Sequence[Made]) -> dict[str, Figures]:
    """By file: what gates look at, on the selection split."""
    base, judge = _scored(site, reference), site.judge
    return {made.name: judge.changes(_scored(site, made), base) for made in files}


def _tested(site: Site, reference: Made, files: Sequence[Made]) -> dict[str, Any]:
    """The front on the test split, which nothing has looked at before."""

    def make(folder: Path) -> None:
        found = validate(
            {made.name: made.path for made in (reference, *files)},
            site.workload.splits.test,
            site.workload.task,
            spec=reference.spec,
            baseline=REFERENCE,
            target=site.settings.target,
            threads=site.settings.threads,
            time_s=site.settings.latency_time_s,
            seed=site.settings.seed,
            progress=site.progress,
        )
        rows = {row.file: row.to_dict() for row in found.rows}
        write_json(folder / "test.json", {"rows": rows, "environment": describe()})

    key = {"files": [made.sha256 for made in (reference, *files)], "time": site.settings.latency_time_s}
    found: dict[str, Any] = json.loads((site.stage("test", key, make) / "test.json").read_text())
    return found
