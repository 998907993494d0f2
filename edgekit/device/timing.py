"""Timing the graphs of a request: batch by batch, each batch in interleaved rounds, so that a killed run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgekit.device.costs import Measured, MeasuredCosts
from edgekit.device.environment import describe
from edgekit.device.latency import Latency, measure
from edgekit.device.request import Timed
from edgekit.device.rounds import Clock
from edgekit.device.session import open_session
from edgekit.errors import ProviderError
from edgekit.progress import Progress, Step, silent

BATCH = 24
"""Graphs that are timed in the same rounds: neighbours in a request are subtracted from each other."""
SWEEPS = 2
"""All graphs are gone through so often, so that a stretch in which other work disturbed them is not all there is."""
MIN_ROUNDS = 9
WARMUP_S = 0.03
WIDTH = 0.005
WORK = "timing operators"


def time_graphs(
    graphs: Sequence[Timed],
    *,
    keep: Callable[[MeasuredCosts], None],
    known: MeasuredCosts | None = None,
    provider: str = "cpu",
    threads: int = 1,
    time_s: float = 60.0,
    clock: Clock = time.perf_counter_ns,
    progress: Progress = silent,
) -> MeasuredCosts:
    """Time graphs that are not known yet, in two sweeps; of each graph the faster counts.

    Args:
        graphs: what is timed; those of one batch in the same rounds.
        keep: given all costs so far after each batch. Whatever ends the run, the next one goes on from what was kept.
        known: what an earlier run kept.
        provider: `cpu`, `cuda` or `tensorrt`.
        threads: intra-op threads.
        time_s: seconds of measuring for all graphs; those that are known take their share of it.
        clock: nanoseconds; tests hand in their own.
        progress: told after each batch.

    Raises:
        EdgekitError: `known` is of another device, or the provider is absent.
    """
    costs = MeasuredCosts(threads=threads, provider=provider, measured={})
    if known is not None:
        here = MeasuredCosts(threads=threads, provider=provider, measured={}, conditions=({"before": describe()},))
        known.merge(here)  # Refused where it is of another device.
        costs = known
    progress(progress_of(graphs, costs))
    if not graphs:
        # Costs of nothing say at least what device this is.
        about = describe()
        costs = costs.merge(replace(costs, measured={}, conditions=({"before": about, "after": about},)))
        keep(costs)
    for sweep in range(SWEEPS):
        rest = [each for each in graphs if sweeps_of(each, costs) <= sweep]
        for start in range(0, len(rest), BATCH):
            batch = rest[start : start + BATCH]
            share = time_s * len(batch) / (SWEEPS * len(graphs))
            found = _timed(batch, provider=provider, threads=threads, time_s=share, clock=clock)
            before = costs.measured
            faster = {key: before[key].or_faster(row) if key in before else row for key, row in found.measured.items()}
            costs = costs.merge(replace(found, measured=faster))
            keep(costs)
            progress(progress_of(graphs, costs))
    return costs


def sweeps_of(each: Timed, costs: MeasuredCosts) -> int:
    """In how many sweeps a graph was timed; one that does not run there is done with."""
    if each.key in costs.failed:
        return SWEEPS
    return min(costs.measured[each.key].sweeps, SWEEPS) if each.key in costs.measured else 0


def progress_of(graphs: Sequence[Timed], costs: MeasuredCosts) -> Step:
    """How far the timing of some graphs is."""
    return Step(WORK, sum(sweeps_of(each, costs) for each in graphs), SWEEPS * len(graphs))


def _timed(batch: Sequence[Timed], *, provider: str, threads: int, time_s: float, clock: Clock) -> MeasuredCosts:
    before = describe()
    calls: dict[str, Callable[[], object]] = {}
    failed: dict[str, str] = {}
    for each in batch:
        try:
            calls[each.key] = call_of(each, provider=provider, threads=threads)
        except ProviderError:
            raise
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own exceptions have no common base but this one
            failed[each.key] = (str(error).splitlines() or [type(error).__name__])[0][:500]
    latencies: Mapping[str, Latency] = (
        measure(calls, time_s=time_s, min_rounds=MIN_ROUNDS, warmup_s=WARMUP_S, width=WIDTH, clock=clock)
        if calls
        else {}
    )
    return MeasuredCosts(
        threads=threads,
        provider=provider,
        measured={key: _row(latency) for key, latency in latencies.items()},
        failed=failed,
        conditions=({"before": before, "after": describe(), "graphs": len(batch)},),
    )


def call_of(each: Timed, *, provider: str = "cpu", threads: int = 1) -> Callable[[], object]:
    """A call that runs a graph once on made-up inputs; it has run once already.

    Floats are normal numbers, integers of 8 bits any, and others 0, which every index may be.
    """
    session = open_session(each.graph, provider=provider, threads=threads)
    rng = np.random.default_rng(0)
    feeds = {
        given.name: _numbers(rng, dtype, sizes)
        for given, (dtype, sizes) in zip(session.get_inputs(), each.inputs, strict=True)
    }
    session.run(None, feeds)
    return lambda: session.run(None, feeds)


def _numbers(rng: np.random.Generator, dtype: str, sizes: tuple[int, ...]) -> np.ndarray:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(sizes).astype(kind)
    if kind in (np.dtype(np.uint8), np.dtype(np.int8)):
        return rng.integers(np.iinfo(kind).min, np.iinfo(kind).max, sizes, endpoint=True).astype(kind)
    return np.zeros(sizes, kind)


def _row(latency: Latency) -> Measured:
    p50 = latency.p50
    return Measured(us=round(1e3 * p50.value, 4), low=round(1e3 * p50.low, 4), high=round(1e3 * p50.high, 4), n=p50.n)
