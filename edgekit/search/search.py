"""The verb `search`: from a builder with choices to a Pareto front of trained, measured networks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.trial import TrialState

from edgekit.choices import Option, SearchSpace, choosing, replaying
from edgekit.device.environment import usable_cores
from edgekit.errors import EdgekitError, did_you_mean
from edgekit.progress import Progress, Step, silent
from edgekit.search.finalists import end, finalists_of
from edgekit.search.front import Point
from edgekit.search.record import Front
from edgekit.search.settings import SearchSettings
from edgekit.search.site import Site
from edgekit.search.study import is_postgresql, retried, sampler_for, storage_at
from edgekit.search.trial import CHOICES, DROP, REASON, SPACE, SPEED, TWIN, objective_of, pruner_of
from edgekit.search.workers import STOP, SURPLUS, Tally, tally, work
from edgekit.stats import Estimate
from edgekit.store import Store, code_digest, write_json
from edgekit.workload import WorkloadConfig, derive

ASKED = "search"
"""User attribute of a study: all that a worker has to know."""
FINAL_SHARE = 0.4
"""Of the time, kept for the full training of the finalists and the final measurements."""
MEASURING_SHARE = 0.1
"""Of the time, at least, for all that is no training of a finalist."""
SHORTEST_S = 5.0
"""However little time is left, a finalist is trained for so long."""
JOURNAL = "study.journal"
POLL_S = 1.0
WORKER_RESTARTS = 3


def search(
    config: WorkloadConfig,
    settings: SearchSettings | None = None,
    *,
    out: str | Path,
    storage: str | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Front:
    """Search the choices of a builder for the networks that are best in latency, drop and size.

    Each trial goes up rungs of rising cost: latency of its int8 file before any training, accuracy after BatchNorm
    re-estimation (where networks start from given weights), short trainings under successive halving. The finalists of
    the front are trained in full (distilled, if there is a teacher), quantized, and measured on their real files; the
    front of these is scored once on the test split.

    Everything is kept below `out` and in the study: the same call goes on where it was interrupted, with a larger
    `trials` or `time_s` too, and trains no network twice.

    Args:
        config: the builder (its `model`), the data and the task, as text, since it travels to workers.
        settings: how to go about it.
        out: folder of the run: `front.json`, `front.png`, the study's journal, and the stages.
        storage: `postgresql://…` for workers on several hosts; a journal in `out` without it.
        workers: processes on this host; 1 is this process.
        progress: told all along.

    Raises:
        EdgekitError: the builder, the data or the machine is at fault, or no network came through.
    """
    settings = settings or SearchSettings()
    root = Path(out)
    with Store(root / "stages").locked():
        site = Site(config, settings, root, progress=progress)
        clock = _Clock(root / f"seconds-{site.identity[:8]}.json")
        found = _explored(site, storage or str(root / JOURNAL), workers=workers, clock=clock)
        ended = end(
            site,
            {point.name: found.choices[point.name] for point in finalists_of(found.points, settings.finalists)},
            deadline_s=lambda left, rest_s: max(
                (clock.left_s(settings.time_s) - max(rest_s, MEASURING_SHARE * settings.time_s)) / left, SHORTEST_S
            ),
        )
        clock.save()
        result = Front(
            name=site.workload.name,
            metric=site.workload.task.metric,
            unit=site.workload.task.unit,
            workload=config,
            members=ended.members,
            others=ended.others,
            reference=ended.reference,
            details={
                **found.details,
                "device": None if site.speeds.book is None else list(site.speeds.book.costs.device),
                "environment": dict(ended.environment),
                "splits": site.workload.splits.digests(),
                "seconds": clock.spent_s,
            },
        )
        result.save(root)
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What the trials came to: the networks that reached the last rung, and the account of all of them.

    Args:
        points: latency and size as they were before training, drop after the last short one; named after the trial.
        choices: of each point, by its name.
        details: all trials and the space, JSON-ready.
    """

    points: Sequence[Point]
    choices: Mapping[str, Mapping[str, Option]]
    details: Mapping[str, Any]


def explore(
    config: WorkloadConfig,
    settings: SearchSettings,
    *,
    out: str | Path,
    storage: str | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> Explored:
    """The trials of `search` without its end: no network is trained in full, and no file is kept.

    Raises:
        EdgekitError: as for `search`.
    """
    root = Path(out)
    with Store(root / "stages").locked():
        site = Site(config, settings, root, progress=progress)
        clock = _Clock(root / f"seconds-{site.identity[:8]}.json")
        return _explored(site, storage or str(root / JOURNAL), workers=workers, clock=clock)


def _explored(site: Site, url: str, *, workers: int, clock: _Clock) -> Explored:
    settings = site.settings
    # What a fault of the builder, the data or the costs would break breaks here, before there are workers.
    site.speeds.ask_for_costs()
    baseline_ms = None if settings.latency else site.speeds.baseline()[1]
    for rung in range(len(settings.short)):
        site.trainings.reference(rung)
    if site.teacher is not None:
        site.trainings.who_teaches()
    with storage_at(url) as store:
        study = _study(store, site, baseline_ms)
        _run(study, site, url, workers=workers, clock=clock)
        points, choices = _points(study)
        details = _told(study, settings)
    if not points:
        raise EdgekitError(
            f"none of {len(details['trials'])} networks came through: {_why(details)}",
            where="search",
            rule="at least one network within the limits that trains to the last rung",
            way_out="raise --max-latency-ms, --trials or --time, or widen the choices",
        )
    return Explored(points=points, choices=choices, details=details)


def serve(url: str, run: Path, *, name: str | None = None, progress: Progress = silent) -> int:
    """Work for the study at `url` until it needs no more trials; return how many were run here.

    A worker needs nothing but the study's address and a folder: what was asked is in the study. With the folder of the
    other workers (on a shared file system) it takes what they have made; with one of its own it makes what it needs.

    Args:
        url: of the storage, as for `search`.
        run: folder for stages.
        name: of the study, where the storage has several.
        progress: told all along.

    Raises:
        EdgekitError: there is no such study, or it was begun by other code.
    """
    with storage_at(url) as store:
        names = optuna.get_all_study_names(store)
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            raise EdgekitError(
                "no study" if name is None else f"no study {name!r}",
                where="--study",
                rule=f"one of {', '.join(names)}" if names else "a storage in which a search has begun",
                way_out=did_you_mean(name, names, "name one with --name")
                if names
                else "start `edgekit search` with this storage first",
            )
        study = optuna.load_study(study_name=name, storage=store)
        asked = study.user_attrs[ASKED]
        settings = SearchSettings.from_dict(asked["settings"])
        study.pruner = pruner_of(settings)
        site = Site(
            WorkloadConfig.from_dict(asked["workload"]),
            settings,
            run,
            baseline_ms=asked["baseline_ms"],
            progress=progress,
        )
        if asked["identity"] != site.identity:
            raise EdgekitError(
                "the search was begun with other code, builder, data or weights than there are here",
                where=f"study {name}",
                rule="all workers have the same edgekit and the same files",
                way_out="install the same version, and copy the builder's file and the data",
            )
        return _work(study, site, url, index=len(study.get_trials(deepcopy=False)) + 1)


def _study(store: Any, site: Site, baseline_ms: float | None) -> optuna.Study:
    settings = site.settings
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(
            study_name=f"{site.workload.name}-{site.identity[:8]}",
            storage=store,
            directions=["minimize"] * len(settings.aims),
            pruner=pruner_of(settings),
            load_if_exists=True,
        )
    finally:
        optuna.logging.set_verbosity(before)
    asked = {
        "workload": site.config.to_dict(),
        "settings": settings.to_dict(),
        "identity": site.identity,
        "code": code_digest(),
        "baseline_ms": study.user_attrs.get(ASKED, {}).get("baseline_ms", baseline_ms),
    }
    if study.user_attrs.get(ASKED) != asked:
        study.set_user_attr(ASKED, asked)
    if study.user_attrs.get(STOP):
        study.set_user_attr(STOP, "")  # It has more time, or more trials, now.
    with choosing(replaying({})) as made:
        site.build()
    if not study.get_trials(deepcopy=False):
        # The default network first: every search can then be compared with what the user would have taken.
        first = {
            each.name: each.default if each.is_ordered else each.options[each.default] for each in made.space.choices
        }
        study.enqueue_trial(first)
    return study


def _run(study: optuna.Study, site: Site, url: str, *, workers: int, clock: _Clock) -> None:
    """Trials until there are enough, or until their share of the time is over."""
    trials_s = site.settings.time_s * (1 - FINAL_SHARE)

    def told(now: Tally) -> None:
        site.progress(Step("networks", min(now.finished, site.settings.trials), site.settings.trials))
        clock.save()

    def has_time() -> bool:
        trials = study.get_trials(deepcopy=False)
        if not any(each.state == TrialState.COMPLETE for each in trials):
            return True  # However little time there is, one network has to come through for there to be a front.
        # Half of a usual trial beyond the end, and half of it before: on the average none.
        lasted = [each.duration.total_seconds() for each in trials if each.duration and TWIN not in each.user_attrs]
        return clock.left_s(trials_s) > median(lasted or [0.0]) / 2

    if workers == 1:
        _work(study, site, url, index=0, may_begin=has_time, told=told)
    else:
        _crowd(study, url, site, workers, has_time=has_time, told=told)
    told(tally(study))


def _work(
    study: optuna.Study,
    site: Site,
    url: str,
    *,
    index: int,
    may_begin: Callable[[], bool] = lambda: True,
    told: Callable[[Tally], None] | None = None,
) -> int:
    settings = site.settings

    def sampler(count: int) -> optuna.samplers.BaseSampler:
        seed = derive(settings.seed, 9, count, index)
        return sampler_for(len(settings.aims), settings.trials, seed=seed, kind=settings.sampler)

    return work(
        study,
        objective_of(site, study),
        trials=settings.trials,
        owners=None if is_postgresql(url) else Path(url).parent / "workers",
        sampler=sampler,
        may_begin=may_begin,
        told=told,
    )


def _crowd(
    study: optuna.Study,
    url: str,
    site: Site,
    count: int,
    *,
    has_time: Callable[[], bool],
    told: Callable[[Tally], None],
) -> None:
    """Worker processes on this host; one that dies is replaced, a few times."""
    log = site.root / "workers.log"
    command = [sys.executable, "-m", "edgekit", "worker", "--study", url, "--run", str(site.root), "--name"]
    # Workers (and their ranks) that take all cores each wait for one another after every operator.
    share = max(1, usable_cores() // (count * site.settings.ranks))
    environment = {"OMP_NUM_THREADS": str(share), **os.environ}
    restarts = 0

    def begin() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            words = [*command, study.study_name]
            return subprocess.Popen(words, stdout=output, stderr=output, env=environment)  # noqa: S603

    crowd = [begin() for _ in range(count)]
    try:
        while crowd:
            time.sleep(POLL_S)
            told(tally(study))
            if not has_time() and not study.user_attrs.get(STOP):
                study.set_user_attr(STOP, "the time for trials is over")
            failed = [each for each in crowd if each.poll()]
            crowd = [each for each in crowd if each.poll() is None]
            for _ in failed:
                restarts += 1
                if restarts > WORKER_RESTARTS:
                    raise EdgekitError(
                        f"workers keep failing; the last one said: {_last_words(log)}",
                        where=str(log),
                        rule="workers run to the end",
                        way_out="look into the log, or run with --workers 1 to see the fault here",
                    )
                crowd.append(begin())
    finally:
        for each in crowd:
            with suppress(ProcessLookupError):
                each.send_signal(signal.SIGINT)
        for each in crowd:
            each.wait()


def _points(study: optuna.Study) -> tuple[list[Point], dict[str, dict[str, Any]]]:
    """A point for each network that reached the last rung, named after its trial, and its choices by that name."""
    points: list[Point] = []
    choices: dict[str, dict[str, Any]] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if TWIN in trial.user_attrs:
            continue
        speed = trial.user_attrs[SPEED]
        name = f"network-{trial.number}"
        choices[name] = dict(trial.user_attrs[CHOICES])
        points.append(
            Point(
                name=name,
                latency_ms=speed["latency_ms"],
                drop=Estimate(**trial.user_attrs[DROP]),
                size_bytes=speed["size_bytes"],
            )
        )
    return points, choices


def _told(study: optuna.Study, settings: SearchSettings) -> dict[str, Any]:
    """What the report says about the trials."""
    space = SearchSpace.from_dict(study.user_attrs.get(SPACE, {"choices": []}))
    return {
        "space": space.to_dict()["choices"],
        "settings": settings.to_dict(),
        "study": study.study_name,
        "trials": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "choices": trial.user_attrs.get(CHOICES),
                "speed": trial.user_attrs.get(SPEED),
                "drop_after_short_training": trial.user_attrs.get(DROP),
                "reason": trial.user_attrs.get(REASON),
                "same_as": trial.user_attrs.get(TWIN),
                "begun_again_for": retried(trial),
                "surplus": bool(trial.user_attrs.get(SURPLUS)),
            }
            for trial in study.get_trials(deepcopy=False)
        ],
    }


def _why(details: dict[str, Any]) -> str:
    reasons: list[str] = [trial["reason"] for trial in details["trials"] if trial["reason"]]
    return (reasons or ["the time was over"])[-1]


def _last_words(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error:")]
    return (lines or log.read_text(errors="replace").splitlines() or ["nothing"])[-1]


class _Clock:
    """Seconds that a search has taken, over all processes that worked on it one after the other."""

    def __init__(self, path: Path) -> None:
        self._path, self._begin = path, time.monotonic()
        self._before = float(json.loads(path.read_text())) if path.is_file() else 0.0

    @property
    def spent_s(self) -> float:
        return self._before + time.monotonic() - self._begin

    def left_s(self, of: float) -> float:
        return of - self.spent_s

    def save(self) -> None:
        write_json(self._path, self.spent_s)
