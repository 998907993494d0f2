"""A run that dies at any moment goes on, and ends with the same files."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


PLAIN = """
import sys
import torch
from edgekit.cli import main
from edgekit.training import choice
from edgekit.transfer import fastest

choice.WORTH = fastest.WORTH = 1.0
torch.set_num_threads(1)
sys.exit(main())
"""
"""`edgekit` on one thread, with no measurement worth another layout, precision or teacher than the plainest: sums would
round otherwise, and what is fastest may differ between runs on a busy machine."""


def command(project, out):
    return [
        *(sys.executable, "-c", PLAIN, "compress", f"{project}:model"),
        *("--train", f"{project}:train_data", "--test", f"{project}:test_data", "--max-drop", "30"),
        # So much time that it binds on no machine: how many steps fit would differ between runs.
        *(
            "--time",
            "900s",
            "--robustness-time",
            "0",
            "--rounds",
            "1",
            "--epochs",
            "6",
            "--grid",
            "32",
            "--out",
            str(out),
            "--json",
        ),
        # What is measured may differ between runs: neither pruning nor placement has a choice here.
        *("--placement", "rules"),
    ]


def start(project, out, **options):
    return subprocess.Popen(command(project, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(project, out):
    process = start(project, out)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return json.loads(stdout)


def results(report):
    """All that must not depend on interruptions: the files, the decisions, the accuracies."""
    return {
        "files": {row["stage"]: row["sha256"] for row in report["stages"]},
        "metric": {row["stage"]: row["metric"] for row in report["stages"]},
        "rounds": [row["decisions"] for row in report["rounds"]],
        "drops": [row["selection"]["drop"] for row in report["rounds"]],
    }


def stop_at(process, out, pattern, how):
    """Send a signal as soon as a path appears below the run's folder."""
    deadline = time.monotonic() + 300
    while not list(Path(out).glob(pattern)):
        assert process.poll() is None, f"ended before {pattern}: {process.stderr.read()}"
        assert time.monotonic() < deadline, f"{pattern} never came"
        time.sleep(0.01)
    process.send_signal(how)
    _, stderr = process.communicate()
    return stderr


@pytest.fixture(scope="module")
def unbroken(project, tmp_path_factory):
    """The folder and the report of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("unbroken") / "run"
    return out, finish(project, out)


def test_kill_9_and_ctrl_c_do_not_change_the_end(project, tmp_path, unbroken):
    _, whole = unbroken
    out = tmp_path / "broken"
    for pattern in (
        "stages/.partial-export-fp32*",
        "stages/.partial-price*",
        "stages/.partial-recovering-round-1*/checkpoint*",
    ):
        process = start(project, out)
        stop_at(process, out, pattern, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not (out / "report.json").exists()
    process = start(project, out)
    stderr = stop_at(process, out, "stages/.partial-export-pruned-1*", signal.SIGINT)
    assert process.returncode == 130
    assert "the same command goes on where it stopped" in stderr
    assert "Traceback" not in stderr
    assert results(finish(project, out)) == results(whole)
    assert results(whole)["rounds"] == [["a: 64 -> 32 channels"]]


def test_a_full_disk_is_an_error_that_loses_nothing(project, tmp_path, unbroken):
    out = tmp_path / "full"

    def small_files():
        # As on a full disk, writes fail part of the way: no file may grow beyond this.
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    process = start(project, out, preexec_fn=small_files, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    _, stderr = process.communicate()
    assert process.returncode == 4, stderr
    fault = json.loads(stderr.splitlines()[-1])["error"]
    assert fault["problem"].startswith("cannot write")
    assert fault["way_out"].startswith("free some space")
    assert not (out / "report.json").exists()
    _, whole = unbroken
    assert results(finish(project, out)) == results(whole)


def test_a_second_run_in_the_same_folder_takes_everything_from_the_first(project, unbroken):
    out, first = unbroken
    second = finish(project, out)
    assert second["seconds"] == first["seconds"]
    assert second["stages"] == first["stages"]
    assert json.loads((out / "report.json").read_text()) == second
