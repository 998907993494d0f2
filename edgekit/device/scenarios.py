"""What a benchmark asks of a model: the four scenarios of MLPerf Inference.

V. J. Reddi et al., *MLPerf Inference Benchmark* (ISCA 2020), section IV: single-stream (one query after the other),
multi-stream (queries of several samples), offline (all samples at once) and server (queries that come when they like,
as a Poisson process). Here everything is in one process: no network, no batching of queries that wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgekit.device.rounds import Clock
from edgekit.errors import EdgekitError

Kind = Literal["single-stream", "multi-stream", "offline", "server"]
MULTI_STREAM, OFFLINE = 8, 1024
"""Samples in a query where nothing else is said; MLPerf's multi-stream has 8."""
PATIENCE = 2
"""No query begins later than so many times as long as they were to take: a queue that only grows has no end."""
SPIN_NS = 200_000
"""A sleep may last a little longer than it should: what is left before a query is waited for with open eyes."""
FULL, NEARLY_FULL = 1.0, 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How queries come.

    Args:
        kind: the scenario.
        samples: of one query; 0 for one run's batch (single-stream, server), 8 (multi-stream) or 1,024 (offline).
        rate: queries a second (server).

    Raises:
        EdgekitError: the server has no rate, or another scenario has one; or a number is negative.

    >>> Scenario(kind="multi-stream").runs(batch=4), Scenario().runs(batch=4)
    (2, 1)
    """

    kind: Kind = "single-stream"
    samples: int = 0
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 0 or (self.rate is not None and not 0 < self.rate < float("inf")):
            raise EdgekitError(
                f"got {self.samples} samples, rate {self.rate}", where="scenario", rule="positive numbers"
            )
        if (self.rate is None) == (self.kind == "server"):
            raise EdgekitError(
                "no rate" if self.kind == "server" else f"a rate for {self.kind}",
                where="--rate",
                rule="queries a second, for the scenario `server` and no other",
                way_out="--scenario server --rate 100",
            )

    def runs(self, batch: int) -> int:
        """Runs of `batch` samples that make a query.

        Raises:
            EdgekitError: a query is not made of whole runs.
        """
        whole = {"multi-stream": MULTI_STREAM, "offline": OFFLINE}.get(self.kind, 0)
        samples = self.samples or whole or batch
        if samples % batch:
            raise EdgekitError(
                f"queries of {samples} samples in runs of {batch}",
                where="--query",
                rule="a multiple of the batch size",
                way_out=f"--query {-(-samples // batch) * batch}",
            )
        return samples // batch

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; the keys are the arguments."""
        return {"kind": self.kind, "samples": self.samples, "rate": self.rate}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """What became of queries that came when they liked.

    Attributes:
        latency_ns: from the moment at which a query came to its answer, int64 [answered].
        service_ns: of that, running the model, int64 [answered].
        asked: how many queries came, or would have come.
    """

    latency_ns: np.ndarray
    service_ns: np.ndarray
    asked: int


def poisson_arrivals(rate: float, duration_s: float, seed: int | tuple[int, ...]) -> np.ndarray:
    """Nanoseconds at which queries come, int64 [n], n about `rate * duration_s`: gaps are exponential, thus memoryless.

    >>> int(poisson_arrivals(1000, 10, 0)[-1]) < 10 * 10**9
    True
    """
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1e9 / rate, max(1, int(rate * duration_s + 6 * (rate * duration_s) ** 0.5 + 10)))
    times = np.cumsum(gaps)
    return times[times < duration_s * 1e9].astype(np.int64)


def serve(
    call: Callable[[], object], arrivals: np.ndarray, *, clock: Clock, sleep: Callable[[float], object]
) -> Served:
    """Answer queries in the order in which they come, one at a time.

    A query that comes while another is answered waits, and its waiting counts: latency is told from when it came, not
    from when its turn was (G. Tene calls the other way *coordinated omission*).

    Args:
        call: answers a query.
        arrivals: nanoseconds after the begin, int64 [n], rising.
        clock: nanoseconds.
        sleep: waits for so many seconds.
    """
    latencies: list[int] = []
    services: list[int] = []
    begin = clock()
    end = begin + PATIENCE * int(arrivals[-1]) if len(arrivals) else begin
    for came in (begin + arrivals).tolist():
        now = clock()
        if now > end:
            break
        if came - now > SPIN_NS:
            sleep((came - now - SPIN_NS) / 1e9)
        while (now := clock()) < came:
            pass
        call()
        done = clock()
        latencies.append(done - came)
        services.append(done - now)
    return Served(
        latency_ns=np.array(latencies, np.int64), service_ns=np.array(services, np.int64), asked=len(arrivals)
    )


def load_remark(rate: float, served: Served) -> str:
    """What the queries' rate means for the model, in words; empty where it can serve them well."""
    if not len(served.service_ns):
        return "not one query was answered"
    capacity = 1e9 / float(np.mean(served.service_ns))
    load = rate / capacity
    unanswered = served.asked - len(served.service_ns)
    if load >= FULL or unanswered:
        more = f"; {unanswered} of {served.asked} queries were not begun" if unanswered else ""
        return (
            f"{rate:g} queries a second are more than it can serve, which is {capacity:.4g}: the queue grows, and its "
            f"latencies say only how long was measured{more}"
        )
    if load >= NEARLY_FULL:
        return (
            f"{load:.0%} of what it can serve ({capacity:.4g} a second): small changes of the rate change latency much"
        )
    return ""
