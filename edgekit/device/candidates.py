"""What a benchmark times, and what it found: candidates, a row for each, and the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit.device.kernels import Kernels
from edgekit.device.latency import SAME, Latency, SpeedVerdict, verdict_of
from edgekit.device.process import WORKER
from edgekit.device.rounds import LostError
from edgekit.device.scenarios import Scenario, Served, load_remark
from edgekit.errors import EdgekitError
from edgekit.stats import Estimate, grouped_median

Source = Literal["onnx", "bundle", "eager", "compiled"]
QUERIES_A_ROUND = 10
"""Queries of a server that stand together: their median is what is compared with the baseline's, which got the same."""
BUSY, SLOWER_CLOCK, HOT_C = 0.5, 0.1, 85.0
"""Load per core before the begin, fall of the frequency, degrees Celsius: from there on something is said."""
WIDE = 2 * SAME
"""An interval that could hold a difference worth having."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What is timed, and how it runs.

    Args:
        name: tells it from the others.
        path: a file, a bundle, or a function's reference.
        source: what `path` is.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: of one run.
        batch: samples of one run; None for what the file or the inputs have, else 1.
        feeds: a file of `edgekit.device.feeds.save_feeds`; without it, inputs are made up.
        worker: the module that opens it.
    """

    name: str
    path: str
    source: Source = "onnx"
    provider: str = "cpu"
    threads: int = 1
    batch: int | None = None
    feeds: Path | None = None
    worker: str = WORKER

    def request(self, what: str, **more: Any) -> dict[str, Any]:
        """A request to its worker."""
        return {
            "do": what,
            "kind": self.source,
            "path": self.path,
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "feeds": None if self.feeds is None else str(self.feeds),
            **more,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate's figures.

    Attributes:
        candidate: what was timed.
        batch: samples of a run.
        samples: samples of a query.
        latency: of a query; in the scenario `server` with the time that it waited.
        throughput: samples a second, one query after the other; of a server, those it answered.
        ratio: how many times faster than the baseline it is per sample, paired by round; None where that has failed.
        verdict: `faster`, `slower` or `no measurable difference`; None without a ratio.
        load_ms: from the file to a session that is ready, in each process.
        first_ms: the first run, in each process.
        peak_bytes: the most memory that a process held (resident), Python, numpy and ONNX Runtime included.
        base_bytes: what it held before it touched the model.
        size_bytes: the file, or all files of a bundle; None for a function.
        energy_j: joules of the whole processor for a query; None where its counters cannot be read.
        kernels: where nodes ran, and what ONNX Runtime's arena held; None where it is not ONNX Runtime.
        remarks: what is odd, in words.
        note: what was chosen, such as a bundle's variant.
    """

    candidate: Candidate
    batch: int
    samples: int
    latency: Latency
    throughput: Estimate
    ratio: Estimate | None
    verdict: SpeedVerdict | None
    load_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    peak_bytes: int
    base_bytes: int
    size_bytes: int | None
    energy_j: Estimate | None
    kernels: Kernels | None
    remarks: tuple[str, ...] = ()
    note: str = ""

    def to_dict(self, *, raw: bool = False) -> dict[str, Any]:
        """A JSON-ready form; with `raw`, with every sample."""
        p90, p99 = self.latency.p90, self.latency.p99
        return {
            **_about(self.candidate),
            "status": "measured",
            "batch": self.batch,
            "query_samples": self.samples,
            "note": self.note,
            "latency": {
                **self.latency.to_dict(raw=raw),
                "mean_ms": self.latency.mean.to_dict(),
                "p90_interval_ms": None if p90 is None else p90.to_dict(),
                "p99_interval_ms": None if p99 is None else p99.to_dict(),
            },
            "throughput_per_s": self.throughput.to_dict(),
            "ratio": None if self.ratio is None else self.ratio.to_dict(),
            "verdict": self.verdict,
            "load_ms": list(self.load_ms),
            "first_ms": list(self.first_ms),
            "peak_bytes": self.peak_bytes,
            "base_bytes": self.base_bytes,
            "size_bytes": self.size_bytes,
            "arena_bytes": None if self.kernels is None else self.kernels.arena_bytes,
            "energy_j": None if self.energy_j is None else self.energy_j.to_dict(),
            "nodes_by_provider": None if self.kernels is None else self.kernels.by_provider(),
            "remarks": list(self.remarks),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A candidate that could not be timed, and why."""

    candidate: Candidate
    reason: LostError

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**_about(self.candidate), "status": "failed", "reason": str(self.reason)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """What a benchmark found, in the order in which the candidates were given.

    Attributes:
        scenario: how queries came.
        rows: those that were timed.
        failed: those that were not.
        before: the machine when it began.
        after: the machine when it ended.
        starts: fresh processes of each candidate.
    """

    scenario: Scenario
    rows: tuple[Row, ...]
    failed: tuple[Failed, ...]
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    starts: int
    remarks: tuple[str, ...] = field(default=())

    def to_dict(self, *, raw: bool = False) -> dict[str, Any]:
        """A JSON-ready form; with `raw`, with every sample."""
        return {
            "scenario": self.scenario.to_dict(),
            "starts": self.starts,
            "environment": {"before": dict(self.before), "after": dict(self.after)},
            "remarks": list(self.remarks),
            "candidates": [row.to_dict(raw=raw) for row in self.rows] + [one.to_dict() for one in self.failed],
        }


@dataclass(slots=True)
class Found:
    """What the starts of one candidate have given so far."""

    runs: list[list[np.ndarray]] = field(default_factory=list)
    joules: list[np.ndarray] = field(default_factory=list)
    opened: list[dict[str, Any]] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)


def row_of(candidate: Candidate, scenario: Scenario, found: Found, kernels: Kernels | None) -> Row:
    """The row of a candidate that lasted, without its ratio to the baseline."""
    opened = found.opened[0]
    batch = opened["batch"]
    samples = batch * scenario.runs(batch)
    remarks: tuple[str, ...] = ()
    if scenario.rate is None:
        latency = Latency.of(found.runs)
        throughput = _per_second(latency.mean, samples)
    else:
        latency, throughput, remarks = _answered(found.served, samples, scenario.rate)
    joules = found.joules if found.joules and all(len(part) for part in found.joules) else []
    return Row(
        candidate=candidate,
        batch=batch,
        samples=samples,
        latency=latency,
        throughput=throughput,
        ratio=None,
        verdict=None,
        load_ms=tuple(answer["load_ms"] for answer in found.opened),
        first_ms=tuple(answer["first_ms"] for answer in found.opened),
        peak_bytes=max(found.peaks),
        base_bytes=max(answer["base_bytes"] for answer in found.opened),
        size_bytes=size_of(candidate),
        energy_j=grouped_median(np.concatenate(joules), [len(part) for part in joules]) if joules else None,
        kernels=kernels,
        remarks=(*remarks, *latency.remarks()),
        note=opened["note"],
    )


def compared(row: Row, first: Row) -> Row:
    """The row beside the baseline's, per sample; rounds that only one of two servers came to are left out."""
    ours, theirs = row.latency, first.latency
    if ours.runs != theirs.runs or len(ours.rounds_ms) != len(theirs.rounds_ms):
        ours, theirs = _common(ours, theirs)
    ratio = ours.ratio_to(theirs)
    scale = row.samples / first.samples
    ratio = replace(ratio, value=ratio.value * scale, low=ratio.low * scale, high=ratio.high * scale)
    verdict, remarks = verdict_of(ratio), row.remarks
    if verdict == "no measurable difference" and ratio.high - ratio.low > WIDE:
        said = f"all that is known is {ratio.low:.3f}x to {ratio.high:.3f}x"
        remarks = (*remarks, f"{said}: a quiet machine or a longer time says more")
    return replace(row, ratio=ratio, verdict=verdict, remarks=remarks)


def size_of(candidate: Candidate) -> int | None:
    """Bytes of a file, or of all files of a bundle; None for a function."""
    path = Path(candidate.path)
    if candidate.source == "bundle" and path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size if candidate.source in ("onnx", "bundle") else None


def machine_remarks(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What of the machine should be known before its figures are believed, in words."""
    cpu, then = after["cpu"], before["cpu"]
    if then["load_average"] and then["load_average"][0] > BUSY * max(cpu["cores"], 1):
        yield f"other work was running before it began: load {then['load_average'][0]:g} on {cpu['cores']} cores"
    if cpu["governor"] not in (None, "performance"):
        yield f"the frequency governor is {cpu['governor']}: the clock follows the load"
    if cpu["frequency_mhz"] and then["frequency_mhz"]:
        change = cpu["frequency_mhz"] / then["frequency_mhz"] - 1
        if change < -SLOWER_CLOCK:
            yield f"the clock fell from {then['frequency_mhz']:.0f} to {cpu['frequency_mhz']:.0f} MHz"
    if cpu["temperature_c"] and cpu["temperature_c"] >= HOT_C:
        yield f"the processor is at {cpu['temperature_c']:.0f} °C: it may have slowed itself down"


def _answered(served: Sequence[Served], samples: int, rate: float) -> tuple[Latency, Estimate, tuple[str, ...]]:
    """Latency under load in rounds of consecutive queries, throughput by start, and what is to be said of the rate."""
    whole = [len(one.latency_ns) // QUERIES_A_ROUND * QUERIES_A_ROUND for one in served]
    if not all(whole):
        raise EdgekitError(
            f"{min(len(one.latency_ns) for one in served)} queries answered in one of {len(served)} starts",
            where="scenario server",
            rule=f"at least {QUERIES_A_ROUND}",
            way_out="a longer --time, a higher --rate or fewer --starts",
        )
    rounds = [list(one.latency_ns[:n].reshape(-1, QUERIES_A_ROUND)) for one, n in zip(served, whole, strict=True)]
    every = Served(
        latency_ns=np.concatenate([one.latency_ns for one in served]),
        service_ns=np.concatenate([one.service_ns for one in served]),
        asked=sum(one.asked for one in served),
    )
    remark = load_remark(rate, every)
    capacity = 1e9 / np.array([one.service_ns.mean() for one in served])
    answered = grouped_median(samples * np.minimum(rate, capacity))
    return Latency.of(rounds), answered, (remark,) if remark else ()


def _common(one: Latency, other: Latency) -> tuple[Latency, Latency]:
    """Two latencies cut to the rounds of each process that both have."""
    counts = [
        min(pair) for pair in zip(one.runs or (len(one.rounds_ms),), other.runs or (len(other.rounds_ms),), strict=True)
    ]

    def cut(latency: Latency) -> Latency:
        runs = latency.runs or (len(latency.rounds_ms),)
        parts = np.split(latency.rounds_ms, np.cumsum(runs)[:-1])
        rounds = np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])
        return Latency(samples_ms=rounds, rounds_ms=rounds, runs=tuple(counts) if len(counts) > 1 else ())

    return cut(one), cut(other)


def _per_second(mean_ms: Estimate, samples: int) -> Estimate:
    scale = 1e3 * samples
    return Estimate(value=scale / mean_ms.value, low=scale / mean_ms.high, high=scale / mean_ms.low, n=mean_ms.n)


def _about(candidate: Candidate) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "source": candidate.source,
        "provider": candidate.provider,
        "threads": candidate.threads,
        "batch": candidate.batch,
    }
