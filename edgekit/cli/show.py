"""How results and progress look in a terminal. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from edgekit.cli.interrupts import INTERRUPTS
from edgekit.progress import Progress, Step, silent
from edgekit.units import format_duration

WIDE = 220
"""Columns of output that goes to a file or a pipe: wide enough that no table is cut."""
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False)
UNBOUNDED = 100_000
"""Columns: rich tells no width beyond that of what it prints on."""
LINE_EVERY_S = 15.0
_RESULT: ContextVar[TextIO | None] = ContextVar("edgekit_result", default=None)


@contextmanager
def only_data(wanted: bool) -> Iterator[None]:
    """Within this, if `wanted`, stdout gets what `data` prints and nothing else.

    What the user's own code prints, when it makes a model or loads data, goes to stderr.
    """
    if not wanted:
        yield
        return
    before = _RESULT.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _RESULT.reset(before)


def data(value: object) -> None:
    """Print one JSON object, and nothing else, on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False), file=_RESULT.get() or sys.stdout)


def table(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is left-aligned, the others right.

    Where a terminal is too narrow for it, each row becomes a paragraph: nothing is cut.
    """
    # As Text: a name with brackets in it is no markup.
    grid = Table(title=Text(title, style="bold"), title_justify="left")
    for index, header in enumerate(headers):
        grid.add_column(Text(header), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row), style="bold green" if row[0].endswith("◀") else None)
    if Measurement.get(out, out.options.update_width(UNBOUNDED), grid).minimum <= out.width:
        out.print(grid, soft_wrap=False)
        return
    out.print(title, style="bold", markup=False)
    for row in rows:
        facts(row[0], {header: cell for header, cell in zip(headers[1:], row[1:], strict=True) if cell})


def facts(title: str, values: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    out.print(title, style="bold", markup=False)
    width = max(map(len, values), default=0)
    for name, value in values.items():
        out.print(f"  {name:<{width}}  {value}", markup=False)


@contextmanager
def progress(*, quiet: bool = False) -> Iterator[Progress]:
    """Live bars on a terminal, a line now and then elsewhere, nothing when `quiet`; each step heeds Ctrl-C."""
    if quiet:
        yield _heeding(silent)
    elif _has_bars():
        with _bars() as bars:
            yield _heeding(_BarWriter(bars))
    else:
        yield _heeding(_LineWriter())


def _has_bars() -> bool:
    # FORCE_COLOR makes rich take a file for a terminal; colours may go there, bars may not.
    return err.is_terminal and sys.stderr.isatty() and not err.is_dumb_terminal


@contextmanager
def ticking(work: str, total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar, on a terminal alone, for work in a few parts: what this yields is called after each.

    More calls than there are parts change nothing.
    """
    with progress(quiet=quiet or not _has_bars()) as step:
        done = 0
        step(Step(work, done, total))

        def tick() -> None:
            nonlocal done
            done = min(done + 1, total)
            step(Step(work, done, total))

        yield tick


def _heeding(writer: Progress) -> Progress:
    def step(step: Step) -> None:
        INTERRUPTS.check()
        writer(step)

    return step


def _bars() -> Bars:
    return Bars(
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[figures]}"),
        console=err,
        transient=False,
    )


def _figures(step: Step) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in step.figures.items())


class _BarWriter:
    """One bar for each kind of work, in the order in which they began; work that comes again starts its bar again."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def __call__(self, step: Step) -> None:
        if step.work not in self._tasks:
            self._tasks[step.work] = self._bars.add_task(step.work, total=step.total, figures="")
        elif step.done < self._done[step.work]:
            self._bars.reset(self._tasks[step.work], total=step.total)
        self._done[step.work] = step.done
        self._bars.update(self._tasks[step.work], completed=step.done, total=step.total, figures=_figures(step))


class _LineWriter:
    """For logs: the begin and the end of each piece of work, and a line every 15 seconds between."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[int, float]] = {}
        self._began: dict[str, tuple[int, float]] = {}

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        done, at = self._said.get(step.work, (step.total, 0.0))
        begins, ends = step.done < done, step.done >= step.total > done
        if begins or step.work not in self._began:
            self._began[step.work] = (step.done, now)
        if begins or ends or now - at >= LINE_EVERY_S:
            self._said[step.work] = (step.done, now)
            text = f"{step.work}: {step.done}/{step.total}  {self._left(step, now)}{_figures(step)}"
            err.print(text, markup=False, soft_wrap=True)

    def _left(self, step: Step, now: float) -> str:
        """How long the rest takes if it goes on as it began."""
        start, at = self._began[step.work]
        if not start < step.done < step.total:
            return ""
        left_s = (now - at) / (step.done - start) * (step.total - step.done)
        return f"about {format_duration(left_s)} left  "
