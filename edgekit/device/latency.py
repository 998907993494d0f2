"""Latency by interleaved rounds, so that the drift of a shared machine cancels out.

Every round runs every candidate once, in a random order, as a short loop of calls. Times of the same round were taken
under the same conditions: ratios are paired by round (`edgekit.stats.median_ratio`).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from edgekit.errors import EdgekitError
from edgekit.progress import Progress, Step, silent
from edgekit.stats import Estimate, median, median_ratio, needed_samples, percentile

Clock = Callable[[], int]
"""Nanoseconds of a clock that never goes back."""

SpeedVerdict = Literal["faster", "slower", "no measurable difference"]

LOOP_NS = 2_000_000
"""An inner loop lasts at least this long: the two microseconds of a round's own bookkeeping are then 0.1 %."""
MAX_LOOP_CALLS = 10_000
MAX_WARMUP_CALLS = 100_000
LARGE_DRIFT = 0.05
SAME = 0.01
"""Ratios within 1 % are no difference: two sessions of one and the same file differ by up to 0.5 % (memory layout), and
with enough rounds an interval is narrower than that."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Latency:
    """What one candidate's calls took, in milliseconds.

    Attributes:
        samples_ms: every timed call, in order, float64 [rounds * calls_per_round].
        rounds_ms: the median call of each round, float64 [rounds]; rounds of one `measure` are paired by index.

    >>> fast = Latency(samples_ms=np.full(40, 1.0), rounds_ms=np.full(40, 1.0))
    >>> slow = Latency(samples_ms=np.full(40, 2.0), rounds_ms=np.full(40, 2.0))
    >>> fast.ratio_to(slow).value, fast.verdict(slow), fast.p99
    (2.0, 'faster', None)
    """

    samples_ms: np.ndarray
    rounds_ms: np.ndarray

    @property
    def p50(self) -> Estimate:
        """The median over rounds of the round's median call, with its bootstrap interval over rounds.

        Neighbouring calls resemble each other, so single calls are not independent samples; rounds nearly are.
        """
        return median(self.rounds_ms)

    @property
    def p90(self) -> float | None:
        """The 90th percentile of single calls, None where they are fewer than 29."""
        return percentile(self.samples_ms, 90)

    @property
    def p99(self) -> float | None:
        """The 99th percentile of single calls, None where they are fewer than 299."""
        return percentile(self.samples_ms, 99)

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

    def ratio_to(self, baseline: Latency) -> Estimate:
        """How many times faster than `baseline` this is, paired by round.

        Raises:
            EdgekitError: the two were not measured in the same rounds.
        """
        if self.rounds_ms.shape != baseline.rounds_ms.shape:
            raise EdgekitError(
                f"{len(self.rounds_ms)} rounds against {len(baseline.rounds_ms)}",
                where="ratio of two latencies",
                rule="both come from one call of measure()",
                way_out="measure them together: measure({'baseline': ..., 'candidate': ...})",
            )
        return median_ratio(baseline.rounds_ms, self.rounds_ms)

    def verdict(self, baseline: Latency) -> SpeedVerdict:
        """Whether the 95 % interval of the ratio lies above 1.01, below 1 / 1.01, or neither (`SAME` says why)."""
        ratio = self.ratio_to(baseline)
        if ratio.low > 1 + SAME:
            return "faster"
        return "slower" if ratio.high < 1 / (1 + SAME) else "no measurable difference"

    def to_dict(self, *, raw: bool = False) -> dict[str, Any]:
        """A JSON-ready form; with `raw`, every sample too, and `from_dict` takes it back."""
        figures: dict[str, Any] = {
            "p50_ms": self.p50.to_dict(),
            "p90_ms": self.p90,
            "p99_ms": self.p99,
            "calls": len(self.samples_ms),
            "rounds": len(self.rounds_ms),
            "drift": self.drift,
        }
        if raw:
            figures |= {"samples_ms": self.samples_ms.tolist(), "rounds_ms": self.rounds_ms.tolist()}
        return figures

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict(raw=True)` gave."""
        return cls(samples_ms=np.array(data["samples_ms"], float), rounds_ms=np.array(data["rounds_ms"], float))


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
    begins with one that is not timed: it brings code and weights back into the caches that the other candidates took.
    Garbage collection is off while rounds run.

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
    names = list(calls)
    loops = {name: _warm_up(call, warmup_s, clock) for name, call in calls.items()}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    order = np.random.default_rng(seed)
    rounds, next_look = 0, min_rounds
    with _no_garbage_collection():
        begin = clock()
        while True:
            for index in order.permutation(len(names)):
                name = names[index]
                rows[name].append(_timed_loop(calls[name], loops[name], clock))
            rounds += 1
            spent = (clock() - begin) / (time_s * 1e9)
            done = rounds >= min_rounds and spent >= 1
            if not done and rounds >= next_look:
                next_look = math.ceil(rounds * 1.5)
                done = _narrow(rows, width)
            progress(Step("measuring latency", 100 if done else min(99, int(100 * spent)), 100))
            if done:
                return {name: _latency(times) for name, times in rows.items()}


def _warm_up(call: Callable[[], object], warmup_s: float, clock: Clock) -> int:
    """Run `call` for `warmup_s` and say how many calls fill a loop."""
    times: list[int] = []
    begin = last = clock()
    while len(times) < 3 or (last - begin < warmup_s * 1e9 and len(times) < MAX_WARMUP_CALLS):
        call()
        now = clock()
        times.append(now - last)
        last = now
    # The first calls allocate and lay out memory: only the second half tells how long a call takes.
    typical = float(np.median(times[len(times) // 2 :]))
    return min(MAX_LOOP_CALLS, max(1, math.ceil(LOOP_NS / max(typical, 1))))


def _timed_loop(call: Callable[[], object], count: int, clock: Clock) -> np.ndarray:
    """Nanoseconds of `count` calls, one by one."""
    if count > 1:
        call()
    stamps = [clock()]
    for _ in range(count):
        call()
        stamps.append(clock())
    return np.diff(np.array(stamps, np.int64))


def _latency(times_ns: list[np.ndarray]) -> Latency:
    return Latency(
        samples_ms=np.concatenate(times_ns) / 1e6,
        rounds_ms=np.array([np.median(row) for row in times_ns]) / 1e6,
    )


def _narrow(rows: Mapping[str, list[np.ndarray]], width: float) -> bool:
    latencies = [_latency(times) for times in rows.values()]
    if any(len(latency.samples_ms) < needed_samples(99) for latency in latencies):
        return False
    first, *others = latencies
    intervals = (other.ratio_to(first) for other in others) if others else iter([first.p50])
    return all(interval.high - interval.low < width * interval.value for interval in intervals)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
