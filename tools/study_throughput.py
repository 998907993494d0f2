"""How many trials per second the bookkeeping of a search carries: workers whose networks cost nothing.

    python tools/study_throughput.py postgresql://user@host/database --workers 1,2,4 --trials 400

Prints a line for each number of workers: trials per second over all, and the median time from one trial to the next in
a worker. edgekit/search/SCALING.md says what follows from it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.trial import Trial

from edgekit.search.study import is_postgresql, retried, sampler_for, storage_at
from edgekit.search.workers import tally, work

PARAMETERS = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("storage", help="postgresql://… or the path of a journal")
    parser.add_argument("--workers", default="1,2,4", help="numbers of worker processes")
    parser.add_argument("--trials", type=int, default=400, help="trials of each study")
    parser.add_argument("--sampler", default="nsga2", choices=("nsga2", "tpe", "random"))
    parser.add_argument("--join", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.join:
        _join(options.storage, options.join, options.trials, options.sampler)
        return 0
    print(f"{'workers':>8} {'trials/s':>9} {'ms between trials of a worker':>30}")
    for count in (int(part) for part in options.workers.split(",")):
        rate, between_ms = _measured(options.storage, count, options.trials, options.sampler)
        print(f"{count:>8} {rate:>9.1f} {between_ms:>30.1f}", flush=True)
    return 0


def _measured(url: str, count: int, trials: int, sampler: str) -> tuple[float, float]:
    name = f"throughput-{uuid.uuid4().hex[:8]}"
    with storage_at(url) as storage:
        study = optuna.create_study(study_name=name, storage=storage, directions=["minimize"] * 2)
        words = [sys.executable, __file__, url, "--join", name, "--trials", str(trials), "--sampler", sampler]
        crowd = [subprocess.Popen(words) for _ in range(count)]
        if any(each.wait() for each in crowd):
            sys.exit("a worker failed")
        done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and not retried(trial)]
        assert tally(study).finished == trials
        starts = sorted(trial.datetime_start.timestamp() for trial in done if trial.datetime_start)
        ends = sorted(trial.datetime_complete.timestamp() for trial in done if trial.datetime_complete)
        optuna.delete_study(study_name=name, storage=storage)
    rate = len(done) / (ends[-1] - starts[0])
    return rate, 1e3 * count / rate


def _join(url: str, name: str, trials: int, sampler: str) -> None:
    def nothing(trial: Trial) -> tuple[float, float]:
        values = [trial.suggest_int(f"choice {index}", 0, 7) for index in range(PARAMETERS)]
        trial.set_user_attr("choices", values)
        trial.set_user_attr("speed", {"latency_ms": 1.0, "size_bytes": 1})
        trial.set_user_attr("rung 0", [1.0, 1.0])
        return float(sum(values)), float(-values[0])

    with storage_at(url) as storage:
        study = optuna.load_study(study_name=name, storage=storage)
        begin = int(time.time_ns() % 2**31)
        work(
            study,
            nothing,
            trials=trials,
            owners=None if is_postgresql(url) else Path(f"{url}.workers"),
            sampler=lambda number: sampler_for(2, trials, seed=(begin + number) % 2**31, kind=sampler),
            poll_s=0.1,
        )


if __name__ == "__main__":
    sys.exit(main())
