"""Where the trials of a search are kept, and who proposes the next one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from edgekit.errors import EdgekitError

HEARTBEAT_S = 10
GRACE_S = 30
"""Without a heartbeat for so long, a trial's worker is taken for dead."""
RETRIES = 3
"""How often a trial whose worker died is begun again; one that kills every worker must not kill the search."""
POSTGRESQL = ("postgresql://", "postgresql+psycopg://")
GP_TRIALS = 100
"""Up to so many trials a Gaussian process proposes: its cost grows with their cube."""
MODEL_TRIALS = 1000
"""Up to so many a model of the objective pays; beyond, the genetic algorithm is as good and costs nothing."""
SamplerKind = Literal["auto", "tpe", "gp", "nsga2", "random"]


def is_postgresql(url: str) -> bool:
    """Whether `url` names a PostgreSQL database; else it is the path of a journal."""
    return url.startswith(POSTGRESQL)


@contextmanager
def storage_at(url: str, *, heartbeat_s: int = HEARTBEAT_S, grace_s: int = GRACE_S) -> Iterator[BaseStorage]:
    """The storage at `url`; its connections are closed in the end.

    A journal serves the processes of one host (every operation is a line that is appended under a lock; nothing is
    lost with a process). PostgreSQL serves many: each worker's heartbeat says that its trial is alive, and a trial
    without one is failed and queued again with the same parameters, by whichever worker looks first.

    Args:
        url: `postgresql://user@host/database`, or the path of a journal.
        heartbeat_s: seconds between heartbeats.
        grace_s: silence after which a worker is taken for dead.

    Raises:
        EdgekitError: another kind of database, no driver for it, or it does not answer.
    """
    if is_postgresql(url):
        database = _postgresql(url, heartbeat_s, grace_s)
        try:
            yield database
        finally:
            database.remove_session()
            database.engine.dispose()
        return
    if "://" in url:
        raise EdgekitError(
            f"got {url!r}",
            where="--storage",
            rule="the path of a journal (one host), or postgresql://user@host/database (many)",
            way_out="leave it out on one host: the journal lies in the run's folder",
        )
    path = Path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(path))
    except OSError as error:
        raise EdgekitError(
            f"cannot open the journal: {error.strerror}", where=url, rule="a file in a folder that can be written"
        ) from error
    yield optuna.storages.JournalStorage(backend)


def _postgresql(url: str, heartbeat_s: int, grace_s: int) -> RDBStorage:
    try:
        import psycopg  # noqa: F401 - only whether it is there: SQLAlchemy loads it by name
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise EdgekitError(
            f"no driver for PostgreSQL ({error})",
            where="--storage",
            rule="psycopg 3",
            way_out="pip install 'edgekit[workers]'",
        ) from error
    with quiet():
        try:
            return RDBStorage(
                url.replace(*POSTGRESQL) if url.startswith(POSTGRESQL[0]) else url,
                # A worker uses two: the trial's, and the heartbeat's. Pinged, since a trial may outlive a connection.
                engine_kwargs={"pool_size": 1, "max_overflow": 1, "pool_pre_ping": True},
                heartbeat_interval=heartbeat_s,
                grace_period=grace_s,
                heartbeat_stale_trial_callback=retry,
            )
        except SQLAlchemyError as error:
            raise EdgekitError(
                f"the database does not answer as it should: {str(error).splitlines()[0]}",
                where=_without_password(url),
                rule="a PostgreSQL database that this user may create tables in",
                way_out="try it with psql",
            ) from error


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a failed trial again with the parameters that it had got so far, `RETRIES` times at most."""
    with quiet():
        again = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    # What the first attempt noted about itself is not true of the next one.
    trial.user_attrs = {}
    again(study, trial)


def retried(trial: FrozenTrial) -> list[int]:
    """The numbers of the failed trials that this one is begun again for, the first one first."""
    return list(trial.system_attrs.get("retry_history", []))


def sampler_for(aims: int, trials: int, *, seed: int, kind: SamplerKind = "auto") -> BaseSampler:
    """What proposes the next trial: NSGA-II for a front; for one aim a Gaussian process, TPE, or again NSGA-II.

    Args:
        aims: how many there are.
        trials: how many are planned.
        seed: of its random numbers.
        kind: a sampler by name instead of the choice made here.
    """
    if kind == "auto":
        kind = "nsga2" if aims > 1 or trials > MODEL_TRIALS else "gp" if trials <= GP_TRIALS else "tpe"
    begin = max(4, min(10, trials // 4))
    with quiet():
        if kind == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=begin, warn_independent_sampling=False)
        if kind == "tpe":
            return optuna.samplers.TPESampler(seed=seed, n_startup_trials=begin)
        if kind == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 5)))
        return optuna.samplers.RandomSampler(seed=seed)


class quiet(warnings.catch_warnings):  # noqa: N801 - a context manager, used like the one that it is
    """Optuna marks heartbeat, retry and some samplers as experimental; that is known here."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)
