"""Workers that share a study: every trial accounted for, none lost, none finished twice, whoever dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import ExitStack

import optuna
import pytest
from optuna.trial import TrialState

from edgekit.search.study import retried, sampler_for, storage_at
from edgekit.search.workers import SURPLUS, WORKER, reclaim, tally, work

TRIALS = 12

WORKER_PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    from pathlib import Path
    import optuna
    from edgekit.search.study import storage_at, sampler_for
    from edgekit.search.workers import work

    url, folder, dies, trials = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "dies", int(sys.argv[4])
    is_journal = "://" not in url

    def objective(trial):
        x = trial.suggest_int("x", 0, 10**6)
        with (folder / "begun").open("a") as log:
            log.write(f"{trial.number} {x}\\n")
        if dies:
            (folder / "mid-trial").write_text(str(trial.number))
            time.sleep(600)
        time.sleep(0.05)
        if x % 3 == 0:
            raise optuna.TrialPruned
        with (folder / "ended").open("a") as log:
            log.write(f"{x}\\n")
        return (float(x),)

    def sampler(count):
        return sampler_for(1, trials, seed=os.getpid() + count, kind="random")

    owners = folder / "workers" if is_journal else None
    with storage_at(url, heartbeat_s=1, grace_s=3) as storage:
        study = optuna.load_study(study_name="s", storage=storage)
        work(study, objective, trials=trials, owners=owners, sampler=sampler, poll_s=0.1, grace_s=3)
    """
)


def start(url, folder, behaviour, trials=TRIALS):
    words = [sys.executable, "-c", WORKER_PROGRAM, str(url), str(folder), behaviour, str(trials)]
    with (folder / f"{behaviour}.err").open("a") as errors:
        return subprocess.Popen(words, stderr=errors)


def accounted(study, trials):
    """Assert that each trial has its end, and each failed one its reason."""
    states = tally(study)
    assert (states.finished, states.running, states.waiting) == (trials, 0, 0)
    failed = [t for t in study.trials if t.state == TrialState.FAIL and not t.user_attrs.get(SURPLUS)]
    again = {number for t in study.trials for number in retried(t)}
    assert {t.number for t in failed} == again
    ends = Counter((retried(t) or [t.number])[0] for t in study.trials if t.state.is_finished() and t not in failed)
    assert set(ends.values()) == {1}
    return failed


@pytest.fixture
def open_study():
    """Make a study in the storage at a URL."""
    with ExitStack() as stack:
        yield lambda url: optuna.create_study(study_name="s", storage=stack.enter_context(storage_at(str(url))))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_a_worker_killed_in_the_middle_of_a_trial_loses_nothing(storage, tmp_path, request, open_study):
    url = str(tmp_path / "study.journal") if storage == "journal" else request.getfixturevalue("postgresql")
    study = open_study(url)
    doomed = start(url, tmp_path, "dies")
    others = []
    try:
        for _ in range(600):
            if (tmp_path / "mid-trial").is_file():
                break
            time.sleep(0.1)
        number = int((tmp_path / "mid-trial").read_text())
        others.append(start(url, tmp_path, "lives"))
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        others.append(start(url, tmp_path, "lives"))
        assert [other.wait(120) for other in others] == [0, 0], (tmp_path / "lives.err").read_text()
    finally:
        for each in (doomed, *others):
            each.kill()
            each.wait()
    (failed,) = accounted(study, TRIALS)
    assert failed.number == number
    (successor,) = [trial for trial in study.trials if retried(trial)]
    assert successor.params == failed.params
    assert successor.user_attrs[WORKER] != failed.user_attrs[WORKER]
    complete = [trial.params["x"] for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert sorted(complete) == sorted(int(line) for line in (tmp_path / "ended").read_text().split())


@pytest.mark.slow
def test_workers_that_ask_at_once_finish_as_many_trials_as_are_wanted(tmp_path, open_study):
    url = tmp_path / "study.journal"
    study = open_study(url)
    crowd = [start(url, tmp_path, "lives", trials=3) for _ in range(4)]
    assert [each.wait(120) for each in crowd] == [0] * 4, (tmp_path / "lives.err").read_text()
    assert accounted(study, 3) == []
    assert not list((tmp_path / "workers").iterdir())


@pytest.fixture
def study(tmp_path, open_study):
    return open_study(tmp_path / "study.journal")


def run(study, objective, folder, **options):
    settings = {"trials": 3, "owners": folder / "workers", "sampler": lambda n: sampler_for(1, 3, seed=n, kind="tpe")}
    return work(study, objective, **{**settings, "poll_s": 0.01, **options})


def test_an_interrupted_trial_is_queued_again_with_its_parameters(study, tmp_path):
    seen = []

    def objective(trial):
        seen.append(trial.suggest_int("x", 0, 1000))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return (1.0,)

    with pytest.raises(KeyboardInterrupt):
        run(study, objective, tmp_path)
    assert tally(study).waiting == 1
    assert run(study, objective, tmp_path) == 2
    assert seen[2] == seen[1]
    accounted(study, 3)


def test_a_worker_that_was_taken_for_dead_does_not_finish_a_trial_a_second_time(study, tmp_path):
    alive = []

    def objective(trial):
        if not alive:
            alive.append(trial.number)
            study.tell(trial.number, state=TrialState.FAIL)  # as another worker would, after a long silence
        return (1.0,)

    assert run(study, objective, tmp_path) == 3
    assert study.trials[alive[0]].state == TrialState.FAIL
    assert tally(study).finished == 3


def test_a_trial_that_died_before_it_named_its_worker_is_begun_again(study, tmp_path):
    number = study.ask().number
    reclaim(study, tmp_path / "workers")
    assert study.trials[number].state == TrialState.RUNNING
    assert run(study, lambda trial: (float(trial.number),), tmp_path, grace_s=0.0) == 3
    (failed,) = accounted(study, 3)
    assert failed.number == number


def test_a_trial_that_kills_its_workers_is_given_up(study, tmp_path):
    deaths = []

    def objective(trial):
        if not deaths or retried(study.trials[trial.number]):
            deaths.append(trial.number)
            raise KeyboardInterrupt
        return (1.0,)

    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(study, objective, tmp_path)
    assert run(study, objective, tmp_path) == 3
    assert len(deaths) == 4


def test_a_study_that_was_told_to_stop_starts_nothing(study, tmp_path):
    study.set_user_attr("stop", "time is up")
    assert run(study, lambda _: (1.0,), tmp_path) == 0
    assert study.trials == []


@pytest.mark.parametrize(
    ("aims", "trials", "name"),
    [
        (1, 20, "GPSampler"),
        (1, 500, "TPESampler"),
        (1, 5000, "NSGAIISampler"),
        (2, 20, "NSGAIISampler"),
        (3, 500, "NSGAIISampler"),
    ],
)
def test_the_sampler_follows_from_the_aims_and_the_trials(aims, trials, name):
    assert type(sampler_for(aims, trials, seed=0)).__name__ == name
