"""Latency by interleaved rounds, so that the drift of a shared machine cancels out.

Every round runs every candidate once, in a random order, as a short loop of calls (`edgekit.device.rounds`). Times of
the same round were taken under the same conditions: ratios are paired by round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from edgekit.device.rounds import Clock, Here, interleave
from edgekit.errors import EdgekitError
from edgekit.progress import Progress, silent
from edgekit.stats import Estimate, grouped_mean, grouped_median, grouped_percentile, needed_samples

SpeedVerdict = Literal["faster", "slower", "no measurable difference"]

LARGE_DRIFT = 0.05
UNSTABLE = 0.15
"""Half of all rounds lie within a band of this width around the median on a machine that is quiet enough."""
APART = 0.02
"""Processes of one and the same file differ by less, as a rule."""
SAME = 0.01
"""Ratios within 1 % are no difference: two sessions of one and the same file differ by up to 0.5 % (memory layout), and
with enough rounds an interval is narrower than that."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latency:
    """What one candidate's calls took, in milliseconds.

    Attributes:
        samples_ms: every timed call, in order, float64 [rounds * calls_per_round].
        rounds_ms: the median call of each round, float64 [rounds]; rounds of one `measure` are paired by index.
        runs: how many of the rounds each process had, in order; empty where there was but one.

    >>> fast = Latency(samples_ms=np.full(40, 1.0), rounds_ms=np.full(40, 1.0))
    >>> slow = Latency(samples_ms=np.full(40, 2.0), rounds_ms=np.full(40, 2.0))
    >>> fast.ratio_to(slow).value, fast.verdict(slow), fast.p99
    (2.0, 'faster', None)
    """

    samples_ms: np.ndarray
    rounds_ms: np.ndarray
    runs: tuple[int, ...] = ()

    @classmethod
    def of(cls, runs: Sequence[Sequence[np.ndarray]]) -> Self:
        """The latency that rounds of one or several processes gave: nanoseconds, an array [calls] for each round."""
        rounds = [row for run in runs for row in run]
        return cls(
            samples_ms=np.concatenate(rounds) / 1e6,
            rounds_ms=np.array([np.median(row) for row in rounds]) / 1e6,
            runs=tuple(len(run) for run in runs) if len(runs) > 1 else (),
        )

    @property
    def p50(self) -> Estimate:
        """The median over rounds of the round's median call, with its block bootstrap interval over rounds.

        Neighbouring calls resemble each other, so single calls are not independent samples; rounds nearly are, and
        `edgekit.stats.block_length` sees to the rest.
        """
        return grouped_median(self.rounds_ms, self.runs)

    @property
    def p90(self) -> Estimate | None:
        """The 90th percentile of single calls, None where there are too few (29 at least) to say."""
        return grouped_percentile(self.samples_ms, len(self.rounds_ms), 90, self.runs)

    @property
    def p99(self) -> Estimate | None:
        """The 99th percentile of single calls, None where there are too few (299 at least) to say."""
        return grouped_percentile(self.samples_ms, len(self.rounds_ms), 99, self.runs)

    @property
    def mean(self) -> Estimate:
        """The mean of all calls, outliers included: its inverse is what is served in the long run."""
        return grouped_mean(self.samples_ms.reshape(len(self.rounds_ms), -1).mean(axis=1), self.runs)

    @property
    def drift(self) -> float:
        """How much slower the last half of the rounds was than the first half, as a fraction (0.05 is 5 % slower)."""
        half = len(self.rounds_ms) // 2
        if not half:
            return 0.0
        return float(np.median(self.rounds_ms[-half:]) / np.median(self.rounds_ms[:half]) - 1)

    @property
    def drifted(self) -> bool:
        """Whether the machine changed so much (5 %) that the absolute figures tell little; ratios still hold."""
        return abs(self.drift) > LARGE_DRIFT

    def remarks(self) -> tuple[str, ...]:
        """What is odd about the samples, in words; empty where nothing is."""
        said: list[str] = []
        centre = float(np.median(self.rounds_ms))
        if self.drifted:
            said.append(
                f"became {abs(self.drift):.0%} {'slower' if self.drift > 0 else 'faster'} from the first half of the "
                "rounds to the last: absolute figures tell little, ratios still hold"
            )
        low, high = np.quantile(self.rounds_ms, [0.25, 0.75])
        if high - low > UNSTABLE * centre:
            said.append(
                f"unstable: the middle half of the rounds spans {low:.4g} to {high:.4g} ms; other work ran meanwhile, "
                "or the clock changed"
            )
        if self.runs:
            medians = [float(np.median(part)) for part in np.split(self.rounds_ms, np.cumsum(self.runs)[:-1])]
            if (spread := max(medians) / min(medians) - 1) > APART:
                said.append(f"its {len(medians)} processes differ by {spread:.1%}: memory layout, or drift")
        return tuple(said)

    def ratio_to(self, baseline: Latency) -> Estimate:
        """How many times faster than `baseline` this is, paired by round.

        Raises:
            EdgekitError: the two were not measured in the same rounds.
        """
        if (len(self.rounds_ms), self.runs) != (len(baseline.rounds_ms), baseline.runs):
            raise EdgekitError(
                f"{len(self.rounds_ms)} rounds against {len(baseline.rounds_ms)}",
                where="ratio of two latencies",
                rule="both come from one call of measure()",
                way_out="measure them together: measure({'baseline': ..., 'candidate': ...})",
            )
        return grouped_median(baseline.rounds_ms / self.rounds_ms, self.runs)

    def verdict(self, baseline: Latency) -> SpeedVerdict:
        """Whether the 95 % interval of the ratio lies above 1.01, below 1 / 1.01, or neither (`SAME` says why)."""
        return verdict_of(self.ratio_to(baseline))

    def to_dict(self, *, raw: bool = False) -> dict[str, Any]:
        """A JSON-ready form; with `raw`, every sample too, and `from_dict` takes it back."""
        figures: dict[str, Any] = {
            "p50_ms": self.p50.to_dict(),
            "p90_ms": None if self.p90 is None else self.p90.value,
            "p99_ms": None if self.p99 is None else self.p99.value,
            "calls": len(self.samples_ms),
            "rounds": len(self.rounds_ms),
            "drift": self.drift,
        }
        if raw:
            figures |= {"samples_ms": self.samples_ms.tolist(), "rounds_ms": self.rounds_ms.tolist()}
            figures |= {"runs": list(self.runs)}
        return figures

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict(raw=True)` gave."""
        return cls(
            samples_ms=np.array(data["samples_ms"], float),
            rounds_ms=np.array(data["rounds_ms"], float),
            runs=tuple(data.get("runs", ())),
        )


def verdict_of(ratio: Estimate) -> SpeedVerdict:
    """What a ratio (how many times faster) says, by its whole interval.

    >>> verdict_of(Estimate(value=1.3, low=1.005, high=1.6, n=30))
    'no measurable difference'
    """
    if ratio.low > 1 + SAME:
        return "faster"
    return "slower" if ratio.high < 1 / (1 + SAME) else "no measurable difference"


def measure(
    calls: Mapping[str, Callable[[], object]],
    *,
    time_s: float = 10.0,
    min_rounds: int = 30,
    warmup_s: float = 0.2,
    width: float = 0.004,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> dict[str, Latency]:
    """Time all `calls` in interleaved rounds, in a new random order each round.

    Each candidate is warmed up first, which also tells how many calls make a loop of 2 ms. A loop of several calls
    begins with one that is not timed. Garbage collection is off while rounds run.

    Args:
        calls: what to time, by name; the first is what early stopping compares the others with.
        time_s: no new round begins after so many seconds of rounds, unless `min_rounds` are still missing.
        min_rounds: at least so many rounds, however long they take.
        warmup_s: warm-up of each candidate.
        width: stop early when each interval (of the ratio to the first; of the median if there is but one) is narrower
            than this fraction of its value and p99 can be told; 0 never stops early.
        seed: seed of the order.
        clock: nanoseconds; tests hand in their own.
        progress: told after every round, in percent.

    Raises:
        EdgekitError: there is nothing to measure, or a limit is not positive.

    >>> sorted(measure({"a": lambda: None, "b": lambda: None}, time_s=0.01, min_rounds=2, warmup_s=0.001))
    ['a', 'b']
    """
    if not calls:
        raise EdgekitError("no candidates", where="measure(calls)", rule="at least one callable by name")
    for name, value in (("time_s", time_s), ("min_rounds", min_rounds), ("warmup_s", warmup_s)):
        if not value > 0:
            raise EdgekitError(f"got {value}", where=f"measure({name})", rule="a positive number")
    with no_garbage_collection():
        found = interleave(
            {name: Here(call, clock) for name, call in calls.items()},
            time_s=time_s,
            min_rounds=min_rounds,
            warmup_s=warmup_s,
            enough=lambda rows: narrow([Latency.of([times]) for times in rows.values()], width),
            order=np.random.default_rng(seed),
            clock=clock,
            progress=progress,
        )
    return {name: Latency.of([rows]) for name, rows in found.times.items()}


def narrow(latencies: Sequence[Latency], width: float) -> bool:
    """Whether measuring may stop: p99 of each can be told, and each interval is narrower than `width` of its value.

    How wide an interval is says nothing about where it lies: stopping by it does not favour a verdict.
    """
    if any(len(latency.samples_ms) < needed_samples(99) for latency in latencies):
        return False
    first, *others = latencies
    intervals = (other.ratio_to(first) for other in others) if others else iter([first.p50])
    return all(interval.high - interval.low < width * interval.value for interval in intervals)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Python's garbage collection waits meanwhile.

    Nothing is collected first: beside a training with PyTorch that takes longer than a short measurement.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
