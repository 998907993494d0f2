"""What the benchmark itself adds to each call that it times, above a loop that does nothing else.

    python tools/bench_overhead.py

Times a call of a few microseconds in the benchmark's own loop and in a bare one, in turn; prints the difference for
each call and ends with 1 where it is above two microseconds. What lies between two loops (the pipe, the random order)
is not timed, and so not in it.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from edgekit.device.rounds import timed_loop

LIMIT_US = 2.0
CALLS, TURNS = 2_000, 50


def main() -> int:
    """Print the figure; 1 where it is above the limit."""
    found = overhead_us()
    print(f"{found:.3f} µs a call above a bare loop (limit {LIMIT_US:g})")
    return 0 if found <= LIMIT_US else 1


def overhead_us(call: Callable[[], object] | None = None) -> float:
    """Microseconds for each call that the benchmark's loop adds: the median of turns, whose neighbours are compared."""
    work = call or _work
    differences = []
    for _ in range(TURNS):
        begin = time.perf_counter_ns()
        for _ in range(CALLS):
            work()
        bare = time.perf_counter_ns() - begin
        begin = time.perf_counter_ns()
        timed_loop(work, CALLS, time.perf_counter_ns, lead=False)
        differences.append((time.perf_counter_ns() - begin - bare) / CALLS / 1e3)
    return statistics.median(differences)


def _work() -> int:
    return sum(range(100))


if __name__ == "__main__":
    sys.exit(main())
