"""Threads that are taken away from a training on a crowded machine, and given back."""

from __future__ import annotations

import pytest
import torch

from edgekit.training import FitConfig, fit
from edgekit.training.crowding import RETRY_S, Crowding


class Course:
    """Steps one after the other; `step_s` says how long one takes on so many threads at a time."""

    def __init__(self, threads, step_s, *, measured_s, most=None):
        self.crowding = Crowding(threads, most=most or threads, step_s=measured_s, now=0.0)
        self.step_s, self.now, self.threads = step_s, 0.0, threads

    def until(self, end):
        taken = []
        while self.now < end:
            step_s = self.step_s(self.threads, self.now)
            self.now += step_s
            self.threads = self.crowding.after(step_s, self.now)
            taken.append(self.threads)
        return taken


def test_steps_that_vary_take_no_thread_away():
    course = Course(4, lambda _threads, now: 0.01 * (1 + 2.5 * (int(now * 100) % 2)), measured_s=0.01)
    assert set(course.until(90)) == {4}


def test_a_crowd_takes_threads_until_steps_are_fast_and_gives_them_back_when_it_is_gone():
    def step_s(threads, now):
        return {1: 0.02, 2: 1.0, 4: 1.0}[threads] if now < 100 else 0.03 / threads

    course = Course(4, step_s, measured_s=0.01)
    course.until(5)
    assert course.threads == 1
    crowded = course.until(100)
    # More are tried, and each try that does not help is followed by a longer wait.
    assert 0 < sum(threads > 1 for threads in crowded) <= 6
    course.until(400)
    assert course.threads == 4


def test_work_that_is_slow_on_any_number_of_threads_gets_all_of_them_back():
    course = Course(2, lambda threads, now: (0.01 if now < 1 else 0.1) / threads, measured_s=0.005)
    course.until(1.5)
    assert course.threads == 1
    course.until(2 + RETRY_S + 2)
    assert course.threads == 2
    # That is how fast it goes now: nothing is taken away again.
    assert set(course.until(300)) == {2}


def test_a_training_that_began_in_a_crowd_gets_its_threads_when_it_is_gone():
    def step_s(threads, now):
        return {1: 0.02, 2: 1.0}[threads] if now < 100 else 0.02 / threads

    course = Course(1, step_s, measured_s=0.02, most=2)
    crowded = course.until(100)
    assert 0 < crowded.count(2) <= 6
    course.until(400)
    assert course.threads == 2


def test_one_thread_stays_one():
    assert set(Course(1, lambda _threads, now: 0.01 if now < 1 else 1.0, measured_s=0.01).until(60)) == {1}


@pytest.mark.parametrize(("given", "left"), [("auto", 1), (2, 2)])
def test_a_training_leaves_a_crowded_core(net, blobs, objective, given, left):
    before, now, taken = torch.get_num_threads(), [0.0], []

    def crowded(model, batch):
        taken.append(torch.get_num_threads())
        # Free while the choice is measured, with four steps and two on half of the threads.
        now[0] += 0.02 if len(taken) <= 6 or torch.get_num_threads() == 1 else 1.0
        return objective(model, batch)

    plain = {"precision": "fp32", "channels_last": False, "workers": 0}
    settings = FitConfig(epochs=2, batch_size=16, threads=given, **plain)
    torch.set_num_threads(2)
    try:
        fit(net, blobs, crowded, settings, clock=lambda: now[0])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert taken[-1] == left
