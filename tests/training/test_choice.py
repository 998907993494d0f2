"""How a training computes is measured, here with a clock that the objective moves."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
import torch

from edgekit.errors import TrainingError
from edgekit.training import FitConfig, choice, fit
from edgekit.training.choice import choose
from edgekit.workload import Stream


class Machine:
    """Steps take as long as `step_s` says of a number of threads."""

    def __init__(self, objective, step_s):
        self.objective, self.step_s, self.now, self.steps = objective, step_s, 0.0, []

    def __call__(self, model, batch):
        self.steps.append(torch.get_num_threads())
        self.now += self.step_s[torch.get_num_threads()]
        return self.objective(model, batch)


class Processor:
    """Steps take as long as `step_s` says of a precision; those it does not know do not run."""

    def __init__(self, objective, step_s):
        self.objective, self.step_s, self.now, self.steps = objective, step_s, 0.0, []

    def __call__(self, model, batch):
        kind = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
        self.steps.append(kind)
        if kind not in self.step_s:
            raise RuntimeError("could not create a primitive descriptor")
        self.now += self.step_s[kind]
        return self.objective(model, batch)


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def chosen(net, blobs, objective):
    def choice_on(step_s, kind=Machine, **changes):
        machine = kind(objective, step_s)
        given = {"epochs": 1, "batch_size": 16, "precision": "fp32", "channels_last": False, "workers": 0, **changes}
        stream = Stream(blobs, net, batch_size=16, shuffle=True, seed=0, drop_last=True)
        found = choose(net, stream, machine, FitConfig(**given), torch.device("cpu"), clock=lambda: machine.now)
        assert torch.get_num_threads() == 4
        return found, machine.steps

    return choice_on


def test_all_threads_are_taken_where_they_are_fastest_and_one_slow_step_tells(chosen):
    found, steps = chosen({4: 1.0, 2: 1.9, 1: 3.6})
    assert (found.threads, found.step_s) == (4, 1.0)
    assert steps == [4, 4, 4, 4, 2, 2]


def test_threads_that_wait_for_each_other_are_halved_until_it_does_not_help(chosen):
    assert chosen({4: 1.0, 2: 0.02, 1: 0.006})[0].threads == 1
    found, steps = chosen({4: 1.0, 2: 0.02, 1: 0.03})
    assert (found.threads, found.step_s) == (2, pytest.approx(0.02))
    assert steps == [4] * 4 + [2] * 4 + [1] * 2


def test_a_little_faster_is_no_reason_to_leave_a_core_alone(chosen):
    assert chosen({4: 1.0, 2: 0.85, 1: 0.85})[0].threads == 4


def test_a_number_that_is_given_is_not_measured(chosen):
    found, steps = chosen({4: 1.0, 3: 5.0, 2: 0.1, 1: 0.1}, threads=3)
    assert (found.threads, found.step_s) == (3, 5.0)
    assert steps == [3] * 4


@pytest.mark.parametrize(
    ("step_s", "precision", "steps"),
    [
        ({"fp32": 1.0, "bf16": 0.5}, "bf16", 4),
        ({"fp32": 1.0, "bf16": 0.97}, "fp32", 4),
        ({"fp32": 1.0, "bf16": 1.9}, "fp32", 4),
        ({"fp32": 1.0, "bf16": 2.1}, "fp32", 2),  # Emulated: one step to warm up and one that tells.
        ({"fp32": 1.0}, "fp32", 1),  # oneDNN has no LSTM in bf16 for processors without AVX-512.
    ],
)
def test_bf16_is_left_where_it_is_emulated_or_does_not_run(chosen, step_s, precision, steps, monkeypatch):
    monkeypatch.setattr(choice, "has_bf16_kernels", lambda _: True)
    found, run = chosen(step_s, kind=Processor, precision="auto", threads=4)
    assert (found.precision, found.step_s) == (precision, pytest.approx(step_s[precision]))
    assert run.count("bf16") == steps
    assert run.count("fp32") == 4


def test_bf16_is_not_tried_without_kernels_unless_it_is_asked_for(chosen, monkeypatch):
    monkeypatch.setattr(choice, "has_bf16_kernels", lambda _: False)
    found, run = chosen({"fp32": 1.0, "bf16": 0.1}, kind=Processor, precision="auto", threads=4)
    assert (found.precision, set(run)) == ("fp32", {"fp32"})
    found, run = chosen({"fp32": 1.0, "bf16": 0.1}, kind=Processor, precision="bf16", threads=4)
    assert (found.precision, set(run)) == ("bf16", {"bf16"})


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux", reason="flags as Linux lists them on x86"
)
def test_which_processors_have_kernels_in_bf16():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    has = {"avx512bw", "avx512vl", "avx512dq"} <= flags or "avx_ne_convert" in flags
    assert choice.has_bf16_kernels(torch.device("cpu")) == has


def test_a_precision_that_was_asked_for_and_does_not_run_says_why(chosen):
    with pytest.raises(RuntimeError, match="primitive descriptor"):
        chosen({"fp32": 1.0}, kind=Processor, precision="bf16")


def test_a_training_runs_on_the_chosen_threads_and_leaves_no_trace(net, blobs, objective):
    threads = []

    def seen(model, batch):
        threads.append(torch.get_num_threads())
        return objective(model, batch)

    settings = {"epochs": 1, "batch_size": 16, "precision": "fp32", "channels_last": False, "workers": 0}
    result = fit(net, blobs, seen, FitConfig(**settings, threads=2))
    assert result.choice.threads == 2
    assert set(threads) == {2}
    assert torch.get_num_threads() == 4


def test_no_thread_at_all_is_refused():
    with pytest.raises(TrainingError, match="threads"):
        FitConfig(epochs=1, threads=0)
