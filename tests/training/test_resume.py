from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

from edgekit.errors import StoreError, TrainingError
from edgekit.training import FitConfig, fit
from edgekit.workload import digest_of

SETTINGS = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 0.1,
    "precision": "fp32",
    "channels_last": False,
    "threads": 1,
    "workers": 0,
    "checkpoint_every_s": 1e-6,
}


class StoppedError(Exception):
    """Stands for a process that ends in the middle of a step."""


@pytest.mark.parametrize("stop_at", [1, 4, 7, 11, 18])
def test_a_training_interrupted_at_any_step_ends_with_the_same_bits(net, blobs, objective, tmp_path, stop_at):
    settings = FitConfig(**SETTINGS)
    unbroken = fit(net, blobs, objective, settings)
    calls = []

    def stops(model, batch):
        calls.append(1)
        if len(calls) == 4 + stop_at:  # Four steps measure the choice.
            raise StoppedError
        return objective(model, batch)

    path = tmp_path / "fit.pt"
    with pytest.raises(StoppedError):
        fit(net, blobs, stops, settings, checkpoint=path)
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == stop_at - 1
    resumed = fit(net, blobs, objective, settings, checkpoint=path)
    assert digest_of(resumed.model) == digest_of(unbroken.model)
    assert [entry.loss for entry in resumed.history] == [entry.loss for entry in unbroken.history]
    assert resumed.seconds > saved["seconds"]
    again = fit(net, blobs, objective, settings, checkpoint=path)
    assert (again.steps, again.images_per_s) == (18, 0.0)
    assert digest_of(again.model) == digest_of(unbroken.model)


SCRIPT = textwrap.dedent(
    """
    import importlib.util, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("fixtures", sys.argv[1])
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    from edgekit.training import FitConfig, fit
    from edgekit.workload import digest_of
    settings = FitConfig(epochs=12, batch_size=16, learning_rate=0.1, precision="fp32", channels_last=False, threads=1,
                         workers=1, checkpoint_every_s=0.05)
    def tick(step):
        print(step.done, flush=True)
    result = fit(fixtures.make_net(), fixtures.Blobs(), fixtures.cross_entropy, settings,
                 checkpoint=Path(sys.argv[2]), progress=tick)
    print("digest", digest_of(result.model), flush=True)
    """
)


def start(path, conftest):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(conftest), str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )


def digest_in(output):
    return output.rpartition("digest ")[2].strip()


@pytest.mark.slow
def test_kill_9_and_the_same_call_again_end_with_the_same_bits(tmp_path, request):
    conftest = request.path.parent / "conftest.py"
    with start(tmp_path / "whole.pt", conftest) as process:
        whole, _ = process.communicate()
    with start(tmp_path / "killed.pt", conftest) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    with start(tmp_path / "killed.pt", conftest) as process:
        resumed, _ = process.communicate()
    assert len(digest_in(whole)) == 64
    assert digest_in(resumed) == digest_in(whole)


def test_a_deadlines_number_of_steps_survives_an_interruption(net, blobs, objective, tmp_path):
    path = tmp_path / "fit.pt"

    def run(*, stop_at):
        calls = []

        def takes_a_millisecond(model, batch):
            calls.append(1)
            if len(calls) == stop_at:
                raise StoppedError
            return objective(model, batch)

        settings = FitConfig(**{**SETTINGS, "epochs": 500})
        clock = {"deadline_s": 1.0, "clock": lambda: len(calls) / 1000}
        return fit(net, blobs, takes_a_millisecond, settings, checkpoint=path, **clock)

    with pytest.raises(StoppedError):
        run(stop_at=400)
    saved = torch.load(path, weights_only=True)
    assert saved["paced"]
    assert saved["pace"]["steps"] == pytest.approx(1000, rel=0.1)
    assert run(stop_at=None).steps == saved["pace"]["steps"]


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_refused(net, blobs, objective, tmp_path):
    path = tmp_path / "fit.pt"
    fit(net, blobs, objective, FitConfig(**SETTINGS), checkpoint=path)
    with pytest.raises(TrainingError, match="belongs to another training"):
        fit(net, blobs, objective, FitConfig(**{**SETTINGS, "seed": 1}), checkpoint=path)
    net[5].bias.data += 1
    with pytest.raises(TrainingError, match="remove the file to train from the start"):
        fit(net, blobs, objective, FitConfig(**SETTINGS), checkpoint=path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(TrainingError, match="cannot read the checkpoint"):
        fit(net, blobs, objective, FitConfig(**SETTINGS), checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_an_error(net, blobs, objective, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        fit(net, blobs, objective, FitConfig(**SETTINGS), checkpoint=tmp_path / "file" / "fit.pt")
