"""The benchmark: candidates in processes of their own, interleaved, from several fresh starts.

Why so: a noisy machine treats candidates of one round alike (pairing); a process is as fast as its memory happens to
lie, so that two processes with the same file differ by more than any interval over rounds says (T. Mytkowicz et al.,
*Producing Wrong Data Without Doing Anything Obviously Wrong!*, ASPLOS 2009), which several starts average and measure.
The same time tells more in many processes than in few, so there are more of them where a machine is noisy.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from edgekit.device.candidates import Benchmark, Candidate, Failed, Found, compared, machine_remarks, row_of
from edgekit.device.environment import describe
from edgekit.device.kernels import Kernels
from edgekit.device.latency import SAME, Latency, narrow
from edgekit.device.process import WORKER, Process
from edgekit.device.rounds import WORK, LostError, interleave
from edgekit.device.scenarios import Scenario, poisson_arrivals
from edgekit.errors import EdgekitError
from edgekit.progress import Progress, Step, silent

STARTS = 10
"""Of fresh processes, at least: enough that two or three that met other work do not decide."""
MORE_STARTS = 2
"""So many times as many where intervals are wide."""
LONGEST = 4
"""No further start begins after so many times the asked time: opening and warming up are not in that time."""
MIN_ROUNDS = 30
WARMUP_S = 0.1
PLACING_RUNS, PROFILING_RUNS = 1, 50


def benchmark(
    candidates: Sequence[Candidate],
    *,
    scenario: Scenario | None = None,
    time_s: float = 10.0,
    starts: int = STARTS,
    warmup_s: float = WARMUP_S,
    width: float = SAME,
    seed: int = 0,
    placing: bool = True,
    timeout_s: float = 600.0,
    progress: Progress = silent,
) -> Benchmark:
    """Time `candidates` against the first of them, each in ten to twenty fresh processes, one call at a time.

    All candidates' processes are there at once and wait at their pipes; one works at a time, in rounds whose order is
    drawn. Then all end, and the next start begins, until it is known how the candidates compare or the time is over. A
    candidate whose process dies is a row of `failed`; the others go on.

    Args:
        candidates: the first is what the others are compared with.
        scenario: how queries come; one after the other without it.
        time_s: seconds to measure at most, all starts and candidates together, without opening and warming up.
        starts: fresh processes of each candidate, at least; up to twice as many while `width` is not reached. In
            the scenario `server` exactly as many.
        warmup_s: warm-up in each process; longer while it gets faster.
        width: how narrow, as a fraction of its value, the interval of each ratio to the first (of the median, if there
            is one candidate) has to be before there are no more starts; 0: never. How wide an interval is says nothing
            about where it lies, so stopping by it does not favour a verdict.
        seed: of the order, of arrivals and of the bootstrap.
        placing: whether another process finds out where nodes run, and what the arena holds.
        timeout_s: how long one answer of a process may take.
        progress: told all along.

    Raises:
        EdgekitError: there are no candidates, two have one name, or a limit is not positive.
    """
    _check(candidates, time_s, starts)
    before, begin = describe(), time.monotonic()
    asked = scenario or Scenario()
    most = starts if asked.rate is not None else MORE_STARTS * starts
    run = _Run(
        candidates=candidates,
        scenario=asked,
        time_s=time_s / most,
        min_rounds=-(-MIN_ROUNDS // starts),
        warmup_s=warmup_s,
        timeout_s=timeout_s,
        order=np.random.default_rng(seed),
        found={each.name: Found() for each in candidates},
    )
    while run.starts < most and len(run.lost) < len(candidates):
        late = run.measured_s >= time_s or time.monotonic() - begin >= LONGEST * time_s
        if run.starts >= starts and (late or run.narrow(width)):
            break
        run.start((seed, run.starts), partial(_share, progress, run.starts, most))
    progress(Step(WORK, 100, 100))
    lasting = [each for each in candidates if each.name not in run.lost]
    kernels = _kernels(lasting, timeout_s, progress) if placing and lasting else {}
    rows = [row_of(each, run.scenario, run.found[each.name], kernels.get(each.name)) for each in lasting]
    if rows and rows[0].candidate is candidates[0]:
        rows = [compared(row, rows[0]) for row in rows]
    after = describe()
    return Benchmark(
        scenario=run.scenario,
        rows=tuple(rows),
        failed=tuple(Failed(candidate=c, reason=run.lost[c.name]) for c in candidates if c.name in run.lost),
        before=before,
        after=after,
        starts=run.starts,
        remarks=tuple(machine_remarks(before, after)),
    )


def profile_kernels(
    candidate: Candidate, *, runs: int = PROFILING_RUNS, optimized: Path | None = None, timeout_s: float = 600.0
) -> Kernels:
    """Run a candidate in a fresh process under ONNX Runtime's profiler, which slows it: never while it is timed.

    Args:
        candidate: an ONNX file or a bundle.
        runs: how many count; three more go before.
        optimized: where the graph goes that ONNX Runtime really runs.
        timeout_s: how long that may take.

    Raises:
        LostError: it does not run.
    """
    with Process(candidate.name, module=candidate.worker, timeout_s=timeout_s) as process:
        request = candidate.request("profile", count=runs, optimized=None if optimized is None else str(optimized))
        return Kernels.from_dict(process.ask(request)[0])


def _check(candidates: Sequence[Candidate], time_s: float, starts: int) -> None:
    names = [each.name for each in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        problem = f"two candidates are called {', '.join(twice)}" if twice else "no candidates"
        raise EdgekitError(problem, where="benchmark(candidates)", rule="one or more, each with a name of its own")
    for name, value in (("time_s", time_s), ("starts", starts)):
        if not value > 0:
            raise EdgekitError(f"got {value}", where=f"benchmark({name})", rule="a positive number")


@dataclass(slots=True, kw_only=True)
class _Run:
    """What all starts have in common, and what they have given so far."""

    candidates: Sequence[Candidate]
    scenario: Scenario
    time_s: float
    min_rounds: int
    warmup_s: float
    timeout_s: float
    order: np.random.Generator
    found: dict[str, Found]
    lost: dict[str, LostError] = field(default_factory=dict)
    loops: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    measured_s: float = 0.0

    def narrow(self, width: float) -> bool:
        """Whether no more starts are needed."""
        lasting = [self.found[each.name].runs for each in self.candidates if each.name not in self.lost]
        return narrow([Latency.of(runs) for runs in lasting], width)

    def start(self, seed: tuple[int, ...], progress: Progress) -> None:
        """Open all candidates that are left in fresh processes, measure, and end them."""
        self.starts += 1
        with ExitStack() as stack:
            ready = self._open(stack)
            if self.scenario.rate is None:
                self._interleave(ready, progress)
            elif ready:
                arrivals = poisson_arrivals(self.scenario.rate, self.time_s / len(ready), seed)
                self._serve(ready, arrivals, progress)
            for name, process in ready.items():
                if name not in self.lost:
                    with _losing(self.lost, name):
                        self.found[name].peaks.append(process.ask({"do": "memory"})[0]["peak_bytes"])

    def _open(self, stack: ExitStack) -> dict[str, Process]:
        """A fresh process for each; they start together, and load their models one after the other."""
        alive = [each for each in self.candidates if each.name not in self.lost]
        started = [
            (each, stack.enter_context(Process(each.name, module=each.worker, timeout_s=self.timeout_s)))
            for each in alive
        ]
        ready: dict[str, Process] = {}
        for each, process in started:
            with _losing(self.lost, each.name):
                answer, _ = process.ask(each.request("open", scenario=self.scenario.to_dict()))
                self.found[each.name].opened.append(answer)
                ready[each.name] = process
        # Two cores of one machine differ, by what runs beside them on other machines of the same host at the least:
        # candidates of one thread meet the same one, which the system has chosen.
        if ready and all(each.threads == 1 for each in alive):
            core = next(iter(ready.values())).core()
            if core is not None:
                for process in ready.values():
                    process.stay_on(core)
        return ready

    def _interleave(self, ready: Mapping[str, Process], progress: Progress) -> None:
        rounds = interleave(
            ready,
            time_s=self.time_s,
            min_rounds=self.min_rounds,
            warmup_s=self.warmup_s,
            order=self.order,
            calls=self.loops,
            progress=progress,
        )
        self.measured_s += rounds.measured_s
        self.lost.update(rounds.lost)
        self.loops = {**rounds.calls, **self.loops}
        for name, times in rounds.times.items():
            self.found[name].runs.append(times)
            self.found[name].joules.append(np.array(ready[name].joules) / self.loops[name])

    def _serve(self, ready: Mapping[str, Process], arrivals: np.ndarray, progress: Progress) -> None:
        """Every candidate gets the same queries at the same times, after a warm-up; who comes first is drawn."""
        names = list(ready)
        for done, index in enumerate(self.order.permutation(len(names))):
            name = names[index]
            with _losing(self.lost, name):
                ready[name].warm_up(self.warmup_s)
                self.found[name].served.append(ready[name].serve(arrivals))
            progress(Step(WORK, 100 * (done + 1) // len(names), 100))


class _losing:  # noqa: N801 - read as a verb: `with _losing(lost, name):`
    """Notes the candidate as lost where the block says so, and goes on."""

    def __init__(self, lost: dict[str, LostError], name: str) -> None:
        self._lost, self._name = lost, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, LostError):
            self._lost[self._name] = error
        return isinstance(error, LostError)


def _share(progress: Progress, start: int, starts: int, step: Step) -> None:
    """Progress of one start as part of all."""
    progress(Step(step.work, min(99, (100 * start + step.done) // starts), 100))


def _kernels(candidates: Sequence[Candidate], timeout_s: float, progress: Progress) -> dict[str, Kernels]:
    """Where nodes run; a candidate that does so only without the profiler has none."""
    found: dict[str, Kernels] = {}
    for done, each in enumerate(candidates):
        progress(Step("placing nodes", done, len(candidates)))
        if each.worker == WORKER:
            with _losing({}, each.name):
                found[each.name] = profile_kernels(each, runs=PLACING_RUNS, timeout_s=timeout_s)
    progress(Step("placing nodes", len(candidates), len(candidates)))
    return found
