"""Many callers, one model: waiting inputs become a batch, and who comes when too many wait is turned away.

    from edgekit.device import load
    from edgekit.device.serving import Batcher

    with Batcher(load("resnet20.edgekit"), max_batch=8, queue=64) as batcher:
        future = batcher.submit(image)  # from any thread
        print(future.result())
        answer = await batcher.predict(image)  # or from a coroutine

Numpy and the standard library alone. ONNX Runtime's sessions may be run by several threads at once, so `Model.predict`
may be, too; a `Batcher` is for when that would start more runs than there are cores.
"""

from __future__ import annotations

import asyncio
import bisect
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from edgekit.device.batches import fit, rows_of, why_single
from edgekit.device.model import Answer, Model, Prepared, Raw
from edgekit.errors import EdgekitError

LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the latency histogram's buckets; a last one takes the rest."""


NOTHING = Prepared(feeds={})


class Overloaded(EdgekitError):  # noqa: N818 - it says what the batcher is, not what went wrong in it
    """So many inputs wait that this one was turned away; try again later."""


class Closed(EdgekitError):  # noqa: N818 - likewise
    """The batcher is being shut down and takes nothing more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a batcher has done so far.

    `accepted` is always `answered + failed + cancelled + waiting + running`; those that were turned away (`shed`) were
    never accepted.

    Attributes:
        accepted: inputs that were taken.
        shed: inputs that were turned away because too many waited.
        answered, failed, cancelled: how they ended.
        waiting: accepted, and not in a batch yet.
        running: in the batch that runs now.
        batches: how many batches of each size (in inputs) were run.
        latency: how many inputs ended within each of `LATENCY_BOUNDS_S` (not cumulative), and in a last entry beyond.
        latency_sum_s: seconds from acceptance to the end, of all that were answered or failed.
    """

    accepted: int
    shed: int
    answered: int
    failed: int
    cancelled: int
    waiting: int
    running: int
    batches: Mapping[int, int]
    latency: tuple[int, ...]
    latency_sum_s: float

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "batches": {str(size): count for size, count in self.batches.items()}}


@dataclass(slots=True, kw_only=True, eq=False)
class _Ticket:
    """One accepted input on its way."""

    future: Future[Answer] = field(default_factory=Future)
    since: float
    ready: Prepared = NOTHING
    rows: int = 1


class Batcher:
    """Collects inputs from any number of threads and coroutines, and runs them in batches on a thread of its own.

    While a batch runs, the next one gathers; with `max_wait_s` even an idle model waits a little for company. Batches
    are made only where the model allows it (`edgekit.device.batches.why_single`).

    Attributes:
        model: what `edgekit.device.load` gave.
        why_single: why inputs run one by one; empty where they are put into batches.

    Args:
        model: see above.
        max_batch: rows in one batch at most (an input that is itself a batch of more runs alone).
        max_wait_s: how long an input waits for others, from when it was accepted.
        queue: inputs that may wait, those being preprocessed included; further ones are `Overloaded`.
        clock: seconds that never go back.

    Raises:
        EdgekitError: a limit is out of range.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_batch: int = 8,
        max_wait_s: float = 0.0,
        queue: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value, least in (("max_batch", max_batch, 1), ("queue", queue, 1), ("max_wait_s", max_wait_s, 0)):
            if not value >= least:
                raise EdgekitError(f"got {value}", where=f"Batcher({name})", rule=f"at least {least}")
        self.model = model
        self.why_single = "max_batch is 1" if max_batch == 1 else why_single(model, max_batch)
        self._max_batch = 1 if self.why_single else max_batch
        self._max_wait_s, self._queue, self._clock = max_wait_s, queue, clock
        self._changed = threading.Condition()
        self._ready: deque[_Ticket] = deque()
        self._preparing: set[_Ticket] = set()
        self._running = 0
        self._closed = self._dropping = False
        self._counts: Counter[str] = Counter()
        self._batches: Counter[int] = Counter()
        self._latency = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self._latency_sum_s = 0.0
        # A daemon, so that a caller who forgot to close does not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="edgekit-batcher", daemon=True)
        self._thread.start()

    def submit(self, raw: Raw | Callable[[], Raw]) -> Future[Answer]:
        """Accept an input, preprocess it on the calling thread, and promise what `Model.predict` gives for it.

        Args:
            raw: as `Model.predict` takes it; or a callable that makes it (decoding a file, say), which is only called
                where the input is accepted.

        Returns:
            A future; what goes wrong with this input is raised by its `result`.

        Raises:
            Overloaded: too many wait.
            Closed: `close` was called.
        """
        ticket = self._admit()
        self._prepare(ticket, raw)
        return ticket.future

    async def predict(self, raw: Raw | Callable[[], Raw]) -> Answer:
        """As `submit`, from a coroutine: preprocessing runs on a thread, and cancelling this cancels the input.

        Raises:
            Overloaded: too many wait.
            Closed: `close` was called.
            EdgekitError: the input does not fit the model.
        """
        ticket = self._admit()
        answer = asyncio.wrap_future(ticket.future)
        try:
            asyncio.get_running_loop().run_in_executor(None, self._prepare, ticket, raw)
        except RuntimeError:  # The loop's threads are gone: it is being shut down.
            ticket.future.cancel()
            self._prepare(ticket, raw)
        return await answer

    def statistics(self) -> Statistics:
        """What has been done so far, all figures of one moment."""
        with self._changed:
            return Statistics(
                **{name: self._counts[name] for name in ("accepted", "shed", "answered", "failed", "cancelled")},
                waiting=len(self._preparing) + len(self._ready),
                running=self._running,
                batches=dict(sorted(self._batches.items())),
                latency=tuple(self._latency),
                latency_sum_s=self._latency_sum_s,
            )

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self, *, drain: bool = True, timeout_s: float | None = None) -> None:
        """Take nothing more, and end. Every accepted input is answered or cancelled when this returns.

        Args:
            drain: answer what waits; otherwise cancel it, and only the batch that runs is finished.
            timeout_s: after so long what still waits is cancelled.
        """
        with self._changed:
            self._closed = True
            self._dropping = self._dropping or not drain
            preparing = tuple(self._preparing) if self._dropping else ()
            self._changed.notify_all()
        for ticket in preparing:
            ticket.future.cancel()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.close(drain=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _admit(self) -> _Ticket:
        with self._changed:
            if self._closed:
                raise Closed("the batcher is closed", where="submit", rule="inputs come before close()")
            if len(self._preparing) + len(self._ready) >= self._queue:
                self._counts["shed"] += 1
                raise Overloaded(
                    f"{self._queue} inputs wait",
                    where="submit",
                    rule=f"at most {self._queue} (queue)",
                    way_out="try again in a moment, send less, or serve from more processes",
                )
            ticket = _Ticket(since=self._clock())
            self._preparing.add(ticket)
            self._counts["accepted"] += 1
            return ticket

    def _prepare(self, ticket: _Ticket, raw: Raw | Callable[[], Raw]) -> None:
        """Make the feeds of an accepted input and let it wait; its place in the queue is kept all the while."""
        fault: BaseException | None = None
        try:
            if not ticket.future.cancelled():
                ticket.ready = self.model.prepare(raw() if callable(raw) else raw)
                self.model.spec.check_feeds(ticket.ready.feeds)
                ticket.rows = 1 if self.why_single else rows_of(ticket.ready.feeds)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who sent the input
            fault = error
        with self._changed:
            if fault is None and not ticket.future.cancelled() and not self._dropping:
                self._preparing.remove(ticket)
                self._ready.append(ticket)
                self._changed.notify_all()
                return
        if fault is None:
            ticket.future.cancel()
        if not ticket.future.set_running_or_notify_cancel():
            self._count(ticket, "cancelled")
        elif fault is not None:
            self._count(ticket, "failed")
            ticket.future.set_exception(fault)
        if fault is not None and not isinstance(fault, Exception):
            raise fault

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            begun = []
            for ticket in batch:
                if ticket.future.set_running_or_notify_cancel():
                    begun.append(ticket)
                else:
                    self._count(ticket, "cancelled")
            if begun:
                self._run(begun)

    def _next(self) -> list[_Ticket] | None:
        """The next batch: what waits longest and those after it that fit; None when all is done."""
        with self._changed:
            while not self._ready:
                if self._closed and (self._dropping or not self._preparing):
                    return None
                self._changed.wait()
            end = self._ready[0].since + self._max_wait_s
            while not self._closed and self._fitting() < self._max_batch and (left := end - self._clock()) > 0:
                self._changed.wait(left)
            batch = list(self._ready) if self._dropping else self._taken()
            if self._dropping:
                self._ready.clear()
                for ticket in batch:
                    ticket.future.cancel()
            self._running += len(batch)
            return batch

    def _fitting(self) -> int:
        """How many rows the next batch would have."""
        first = self._ready[0]
        return sum(ticket.rows for ticket in self._ready if fit(first.ready.feeds, ticket.ready.feeds))

    def _taken(self) -> list[_Ticket]:
        """Take the next batch out of the queue."""
        batch = [self._ready.popleft()]
        rows = batch[0].rows
        passed: list[_Ticket] = []
        while self._ready and rows < self._max_batch:
            ticket = self._ready.popleft()
            if fit(batch[0].ready.feeds, ticket.ready.feeds) and rows + ticket.rows <= self._max_batch:
                batch.append(ticket)
                rows += ticket.rows
            else:
                passed.append(ticket)
        self._ready.extendleft(reversed(passed))
        return batch

    def _run(self, batch: list[_Ticket]) -> None:
        with self._changed:
            self._batches[len(batch)] += 1
        try:
            parts = self._outputs(batch)
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's own exceptions have no common base but this one
            if len(batch) == 1:
                self._count(batch[0], "failed")
                batch[0].future.set_exception(error)
                return
            # One of them is at fault: alone, it harms nobody but its own caller.
            for ticket in batch:
                self._run([ticket])
            return
        for ticket, outputs in zip(batch, parts, strict=True):
            try:
                answer = self.model.answer(outputs, ticket.ready)
            except Exception as error:  # noqa: BLE001 - likewise
                self._count(ticket, "failed")
                ticket.future.set_exception(error)
            else:
                self._count(ticket, "answered")
                ticket.future.set_result(answer)

    def _outputs(self, batch: list[_Ticket]) -> list[dict[str, np.ndarray]]:
        """What the model gives for each input of a batch."""
        if len(batch) == 1:
            return [self.model.run(batch[0].ready.feeds)]
        joined = {name: np.concatenate([each.ready.feeds[name] for each in batch]) for name in batch[0].ready.feeds}
        outputs, ends = self.model.run(joined), np.cumsum([ticket.rows for ticket in batch])
        return [
            {name: value[end - ticket.rows : end] for name, value in outputs.items()}
            for ticket, end in zip(batch, ends, strict=True)
        ]

    def _count(self, ticket: _Ticket, end: str) -> None:
        """How an accepted input ended; counted before its caller is told, who may look at the figures."""
        spent = self._clock() - ticket.since
        with self._changed:
            if ticket in self._preparing:
                self._preparing.remove(ticket)
                self._changed.notify_all()
            else:
                self._running -= 1
            self._counts[end] += 1
            if end != "cancelled":
                self._latency[bisect.bisect_left(LATENCY_BOUNDS_S, spent)] += 1
                self._latency_sum_s += spent
