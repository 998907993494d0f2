"""`edgekit search` with worker processes, with workers that share a PostgreSQL, on ranks of torchrun; a bundle."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from edgekit.cli import main
from edgekit.device import load
from edgekit.device.environment import usable_cores
from edgekit.search.study import storage_at

pytestmark = pytest.mark.slow


@pytest.fixture
def words(project):
    """The command without its folder; everything short."""
    data = ["--train", f"{project}:train_data", "--test", f"{project}:test_data"]
    how = ["--latency", f"{project}:microseconds", "--epochs", "1", "--batch-size", "32", "--finalists", "1"]
    return ["search", f"{project}:network", *data, *how, "--placement", "rules", "--time", "30m", "--json"]


def run(*words):
    command = [sys.executable, "-m", "edgekit", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def ends(front):
    return [trial for trial in front["trials"] if trial["state"] in ("complete", "pruned")]


def test_two_worker_processes_share_a_journal(words, tmp_path):
    front = run(*words, "--trials", "6", "--workers", "2", "--out", tmp_path)
    assert len(ends(front)) == 6
    distinct = {json.dumps(trial["choices"]) for trial in ends(front)}
    assert len(list((tmp_path / "stages").glob("train-0-*"))) == len(distinct)


def test_worker_processes_share_the_cores(words, project, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    loud = tmp_path / "loud.py"
    loud.write_text(project.read_text() + "\nimport sys\nprint('threads', torch.get_num_threads(), file=sys.stderr)\n")
    words = [word.replace(str(project), str(loud)) for word in words]
    run(*words, "--trials", "2", "--rungs", "1", "--workers", "2", "--out", tmp_path / "run")
    said = re.findall(r"^threads (\d+)$", (tmp_path / "run" / "workers.log").read_text(), re.MULTILINE)
    assert len(said) >= 2
    assert {int(count) for count in said} == {max(1, usable_cores() // 2)}


def test_workers_elsewhere_share_a_postgresql_and_one_is_killed(words, tmp_path, postgresql):
    command = [sys.executable, "-m", "edgekit", *words, "--trials", "8", "--storage", postgresql]
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        search = subprocess.Popen([*command, "--out", str(tmp_path / "run")], stdout=out, stderr=err)
    name, doomed = None, None
    try:
        # As on another host: a folder of its own.
        worker = [sys.executable, "-m", "edgekit", "worker", "--study", postgresql, "--run", str(tmp_path / "other")]
        for _ in range(600):
            with storage_at(postgresql) as storage:
                studies = [each for each in optuna.get_all_study_names(storage) if each.startswith("net-")]
            if studies:
                (name,) = studies
                break
            time.sleep(0.2)
        assert name is not None
        doomed = subprocess.Popen([*worker, "--name", name], stderr=subprocess.DEVNULL)
        trials = tmp_path / "other" / "stages"
        while not list(trials.glob(".partial-train-*")) and search.poll() is None and doomed.poll() is None:
            time.sleep(0.01)
        doomed.send_signal(signal.SIGKILL)
        doomed.wait()
        assert search.wait(240) == 0, (tmp_path / "err").read_text()[-3000:]
    finally:
        for each in (search, doomed):
            if each is not None:
                each.kill()
                each.wait()
    front = json.loads((tmp_path / "out").read_text())
    assert len(ends(front)) == 8
    failed = {trial["number"] for trial in front["trials"] if trial["state"] == "fail" and not trial["surplus"]}
    assert failed == {number for trial in front["trials"] for number in trial["begun_again_for"]}


def test_a_training_on_two_ranks_of_torchrun(words, tmp_path):
    front = run(*words, "--trials", "2", "--rungs", "1", "--ranks", "2", "--out", tmp_path)
    assert len(ends(front)) == 2
    records = [json.loads(path.read_text()) for path in (tmp_path / "stages").glob("train-*/trained.json")]
    assert records
    assert all(record["epochs"] > 0 for record in records)


def test_the_example_on_digits_ends_in_a_bundle_of_any_point(tmp_path):
    data = ["--train", "edgekit.demo.digits:train_data", "--test", "edgekit.demo.digits:test_data"]
    how = ["--trials", "8", "--time", "90s", "--batch-size", "32", "--out", tmp_path / "run", "--json"]
    front = run("search", "edgekit.demo.choices:network", *data, *how)
    assert front["points"]
    assert max(point["test"]["score"]["metric"]["value"] for point in front["points"]) > 80
    number = len(front["points"])
    assert main(["bundle", "--run", str(tmp_path / "run"), "--point", str(number), "-o", str(tmp_path / "b")]) == 0
    model = load(tmp_path / "b")
    assert model.check().samples == 4
    record = json.loads(next(Path(tmp_path / "b").rglob("bundle.json")).read_text())
    assert record["provenance"]["choices"] == front["points"][-1]["choices"]
