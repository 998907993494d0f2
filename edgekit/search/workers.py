"""The loop of a worker: take a trial, run it, and see to it that no trial of a dead worker is lost.

A worker keeps no state of its own: trials lie in the study, files in the run's folder. Trials are accounted for as
follows. A trial that came to its end is complete or pruned. A failed one is either surplus (workers that ask at the
same moment may ask for more than there are to be) or its worker died, and then another trial with the same parameters
has its number in its history.
"""

from __future__ import annotations

import copy
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from edgekit.search.study import GRACE_S, quiet, retry
from edgekit.store import locking

WORKER, SURPLUS, STOP = "worker", "surplus", "stop"
"""User attributes: of a trial, who runs it, and that it is one too many; of a study, that no more are wanted."""
POLL_S = 1.0


class SurplusError(Exception):
    """This trial is one too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many trials are in which state; `finished` are those that are complete or pruned."""

    all: int
    finished: int
    running: int
    waiting: int


def tally(study: optuna.Study) -> Tally:
    """Count the trials of a study."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    return Tally(
        all=len(states),
        finished=states.count(TrialState.COMPLETE) + states.count(TrialState.PRUNED),
        running=states.count(TrialState.RUNNING),
        waiting=states.count(TrialState.WAITING),
    )


def work(
    study: optuna.Study,
    objective: Callable[[Trial], Sequence[float]],
    *,
    trials: int,
    owners: Path | None,
    sampler: Callable[[int], BaseSampler],
    may_begin: Callable[[], bool] = lambda: True,
    told: Callable[[Tally], None] | None = None,
    poll_s: float = POLL_S,
    grace_s: float = GRACE_S,
) -> int:
    """Run trials until the study has `trials` finished ones, or is told to stop; return how many this worker ran.

    At the end a worker waits for the trials of the others: if one of them dies, somebody has to run its trial again.

    Args:
        study: shared by all workers.
        objective: runs a trial; may raise `optuna.TrialPruned`.
        trials: how many are to be finished.
        owners: folder of the workers' lock files, by which those that share a journal know who is alive; None for a
            database, where heartbeats tell.
        sampler: makes the sampler of the next trial out of the number of trials so far, so that a search that was
            interrupted proposes what it would have proposed.
        may_begin: asked before each trial.
        told: the tally, before each trial and while waiting.
        poll_s: seconds between looks while waiting.
        grace_s: age from which a running trial that names no worker is taken for lost.
    """
    ran = 0
    with _present(owners) as name, quiet(), _silent_optuna():
        while may_begin() and not study.user_attrs.get(STOP):
            reclaim(study, owners, grace_s=grace_s)
            now = tally(study)
            if told is not None:
                told(now)
            if now.finished >= trials:
                break
            if now.finished + now.running >= trials and not now.waiting:
                time.sleep(poll_s)
                continue
            study.sampler = sampler(now.all)
            ran += _run(study, objective, trials, name)
    return ran


def _run(study: optuna.Study, objective: Callable[[Trial], Sequence[float]], trials: int, name: str) -> int:
    """Run one trial; 1 if it came to its end."""
    number = -1
    raised: BaseException | None = None

    def guarded(trial: Trial) -> Sequence[float]:
        nonlocal number, raised
        number = trial.number
        trial.set_user_attr(WORKER, name)
        try:
            if _is_surplus(study, number, trials):
                trial.set_user_attr(SURPLUS, True)
                raise SurplusError  # noqa: TRY301 - it has to pass through Optuna
            return objective(trial)
        except BaseException as error:
            raised = error
            raise

    try:
        study.optimize(guarded, n_trials=1, catch=(SurplusError,))
    except BaseException as error:
        trial = _trial(study, number)
        if trial is None or trial.state != TrialState.FAIL:
            raise
        if error is not raised:
            # Silent for too long, this worker was taken for dead, and its trial was begun again elsewhere: Optuna
            # refuses to end a trial a second time.
            return 0
        retry(study, copy.deepcopy(trial))
        raise
    trial = _trial(study, number)
    return int(trial is not None and trial.state != TrialState.FAIL)


def reclaim(study: optuna.Study, owners: Path | None, *, grace_s: float = GRACE_S) -> None:
    """Fail the running trials of dead workers, and queue them again."""
    with quiet():
        optuna.storages.fail_stale_trials(study)  # by their heartbeats; does nothing to a journal, which has none
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = trial.user_attrs.get(WORKER)
        if owner is None:
            if trial.datetime_start is not None and _age(trial.datetime_start) > timedelta(seconds=grace_s):
                _begin_again(study, trial.number)
        elif owners is not None:
            with _taken(owners / f"{owner}.lock") as is_dead:
                if is_dead:
                    _begin_again(study, trial.number)


def _begin_again(study: optuna.Study, number: int) -> None:
    try:
        failed = study.tell(number, state=TrialState.FAIL)
    except (ValueError, UpdateFinishedTrialError):
        return  # Another worker was first.
    retry(study, failed)


def _is_surplus(study: optuna.Study, number: int, trials: int) -> bool:
    """Whether enough trials with lower numbers are finished or on their way; numbers are given out one by one."""
    before = [trial for trial in study.get_trials(deepcopy=False) if trial.number < number]
    return sum(trial.state not in (TrialState.FAIL, TrialState.WAITING) for trial in before) >= trials


def _trial(study: optuna.Study, number: int) -> FrozenTrial | None:
    return next((trial for trial in study.get_trials(deepcopy=False) if trial.number == number), None)


def _age(start: datetime) -> timedelta:
    return datetime.now(start.tzinfo) - start


@contextmanager
def _present(owners: Path | None) -> Iterator[str]:
    """A name for this worker, and in a journal's folder a lock that the kernel holds while this process lives."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    if owners is None:
        yield name
        return
    path = owners / f"{name}.lock"
    with locking(path, wait=True):
        try:
            yield name
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def _taken(path: Path) -> Iterator[bool]:
    """Whether nobody holds the lock at `path`; if so it is held within this, so that one process alone acts on it."""
    try:
        handle = path.open("r+")
    except OSError:
        yield True  # Its worker left in good order, or the folder was removed.
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


@contextmanager
def _silent_optuna() -> Iterator[None]:
    """Optuna reports every trial on stderr; here the tally does."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        with suppress(ValueError):
            optuna.logging.set_verbosity(before)
