"""Rounds in which every candidate runs once, in an order drawn at random: what times do, wherever the calls run.

The order keeps a candidate from always meeting the machine as its neighbour left it; times of one round were taken
under the same conditions, whatever the machine did between two rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgekit.errors import EdgekitError
from edgekit.progress import Progress, Step, silent

Clock = Callable[[], int]
"""Nanoseconds of a clock that never goes back."""

LOOP_NS = 2_000_000
"""An inner loop lasts at least this long: the two microseconds of a round's own bookkeeping are then 0.1 %."""
MAX_LOOP_CALLS = 10_000
MAX_WARMUP_CALLS = 100_000
LONGEST_WARMUP = 10
"""Times the asked warm-up, for a candidate that goes on getting faster."""
STILL_FASTER = 0.99
WORK = "measuring latency"


class LostError(EdgekitError):
    """A candidate can be timed no more: its process died, or gave up."""


class Timer(Protocol):
    """One candidate: it runs where it likes, and tells nanoseconds."""

    def warm_up(self, warmup_s: float) -> int:
        """Run until it is fast, and say how many calls fill a loop."""

    def loop(self, count: int) -> np.ndarray:
        """Nanoseconds of each of `count` calls, int64 [count]."""


@dataclass(frozen=True, slots=True)
class Here:
    """A callable of this process."""

    call: Callable[[], object]
    clock: Clock = time.perf_counter_ns

    def warm_up(self, warmup_s: float) -> int:
        """See `Timer`."""
        return warm_up(self.call, warmup_s, self.clock)

    def loop(self, count: int) -> np.ndarray:
        """See `Timer`; a loop of several calls begins with one that is not timed."""
        return timed_loop(self.call, count, self.clock, lead=count > 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What some rounds gave.

    Attributes:
        times: of each candidate that lasted: nanoseconds, one array [calls] for each round.
        calls: how many calls its loop has.
        measured_s: how long they took, without warming up.
        lost: of each that did not: why.
    """

    times: Mapping[str, list[np.ndarray]]
    calls: Mapping[str, int]
    measured_s: float
    lost: Mapping[str, LostError] = field(default_factory=dict)


def interleave(
    timers: Mapping[str, Timer],
    *,
    time_s: float,
    min_rounds: int,
    warmup_s: float,
    order: np.random.Generator,
    enough: Callable[[Mapping[str, list[np.ndarray]]], bool] | None = None,
    calls: Mapping[str, int] | None = None,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> Rounds:
    """Warm all `timers` up, then run them in rounds until `time_s` is over or `enough` says so.

    One that is lost drops out, and the others go on.

    Args:
        timers: the candidates by name.
        time_s: no new round begins after so many seconds of rounds, unless `min_rounds` are still missing.
        min_rounds: at least so many.
        warmup_s: warm-up of each; longer while it still gets faster.
        order: draws the order.
        enough: asked now and then (after `min_rounds`, and whenever there are half as many again) with all times; None
            never ends early.
        calls: the length of each candidate's loop, where an earlier run has found it.
        clock: nanoseconds.
        progress: told after every round, in percent.
    """
    loops: dict[str, int] = {}
    times: dict[str, list[np.ndarray]] = {}
    lost: dict[str, LostError] = {}
    for name, timer in timers.items():
        try:
            found = timer.warm_up(warmup_s)
        except LostError as error:
            lost[name] = error
        else:
            loops[name], times[name] = (calls or {}).get(name, found), []
    rounds, next_look, begin = 0, min_rounds, clock()
    while times:
        names = list(times)
        for index in order.permutation(len(names)):
            name = names[index]
            try:
                times[name].append(timers[name].loop(loops[name]))
            except LostError as error:
                lost[name] = error
                del times[name]
        rounds += 1
        spent = (clock() - begin) / (time_s * 1e9)
        done = rounds >= min_rounds and spent >= 1
        if not done and rounds >= next_look and times and enough is not None:
            next_look = math.ceil(rounds * 1.5)
            done = enough(times)
        progress(Step(WORK, 100 if done else min(99, int(100 * spent)), 100))
        if done:
            break
    return Rounds(times=times, calls=loops, measured_s=(clock() - begin) / 1e9, lost=lost)


def warm_up(call: Callable[[], object], warmup_s: float, clock: Clock) -> int:
    """Run `call` for `warmup_s`, longer while it still gets faster, and say how many calls fill a loop of 2 ms."""
    times: list[int] = []
    begin = last = clock()
    look = warmup_s * 1e9
    while True:
        call()
        now = clock()
        times.append(now - last)
        last = now
        spent = now - begin
        if len(times) < 3 or (spent < look and len(times) < MAX_WARMUP_CALLS):
            continue
        if spent >= LONGEST_WARMUP * warmup_s * 1e9 or len(times) >= MAX_WARMUP_CALLS or _settled(times):
            break
        look = 1.5 * spent
    # The first calls allocate and lay out memory: only the second half tells how long a call takes.
    typical = float(np.median(times[len(times) // 2 :]))
    return min(MAX_LOOP_CALLS, max(1, math.ceil(LOOP_NS / max(typical, 1))))


def timed_loop(call: Callable[[], object], count: int, clock: Clock, *, lead: bool) -> np.ndarray:
    """Nanoseconds of `count` calls, one by one.

    With `lead`, a call goes before that is not timed: it brings code and weights back into the caches that the other
    candidates took.
    """
    if lead:
        call()
    stamps = [clock()]
    for _ in range(count):
        call()
        stamps.append(clock())
    return np.diff(np.array(stamps, np.int64))


def _settled(times: list[int]) -> bool:
    """Whether the last quarter of the calls was no faster than the one before."""
    quarter = len(times) // 4
    if quarter < 2:
        return True
    before, last = times[-2 * quarter : -quarter], times[-quarter:]
    return float(np.median(last)) >= STILL_FASTER * float(np.median(before))
