"""Who answers for a search's teacher: itself, or a file of it that answers faster."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from edgekit.search import SearchSettings
from edgekit.search import trainings as room
from edgekit.search.site import Site
from edgekit.workload import Batch

TEACHERS = """
import time

import torch
from torch import nn


class Slow(nn.Module):
    # Every answer in PyTorch takes 50 ms longer than it has to.

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x):
        if not torch.compiler.is_compiling():
            time.sleep(0.05)
        return self.layers(x)


class Branching(Slow):
    def forward(self, x):
        return self.layers(x) if x.sum() > 0 else self.layers(x) + 1


def slow():
    torch.manual_seed(1)
    return Slow().eval()


def branching():
    torch.manual_seed(1)
    return Branching().eval()
"""


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    path = tmp_path_factory.mktemp("teachers") / "teachers.py"
    path.write_text(TEACHERS)
    return path


@pytest.fixture
def site_with(config_for, teachers, tmp_path):
    def make(teacher, **changes):
        settings = SearchSettings(teacher=f"{teachers}:{teacher}", batch_size=32, short_epochs=0.5, **changes)
        return Site(config_for(), settings, tmp_path)

    return make


@pytest.fixture
def asked(monkeypatch):
    """Who taught, by training; the training itself is left out."""
    found = []

    def distilled(_network, teacher, *_, **__):
        found.append(teacher)
        raise RuntimeError("stopped")

    monkeypatch.setattr(room, "distill", distilled)
    return found


def test_a_file_of_a_slow_teacher_answers_for_it_and_is_made_once(site_with, asked, monkeypatch):
    site = site_with("slow")
    with pytest.raises(RuntimeError, match="stopped"):
        site.trainings.trained(site.default, 0)
    (taught_by,) = asked
    assert taught_by is not site.teacher
    x = torch.randn(7, 6)
    with torch.no_grad():
        truth = site.teacher(x)
    noise = float((taught_by(Batch((x,), {}, None)) - truth).square().sum() / truth.square().sum())
    assert noise < 0.01  # 20 dB
    (folder,) = (site.root / "stages").glob("teaching-*")
    about = json.loads((folder / "teaching.json").read_text())
    seconds = {name: found["seconds"] for name, found in about["teachers"].items() if "seconds" in found}
    assert about["taught_by"] in {"fp32", "int8"}
    assert seconds[about["taught_by"]] < seconds["the network"]
    monkeypatch.setattr(room, "make_files", lambda *_: pytest.fail("made again"))
    monkeypatch.setattr(room, "fastest_teacher", lambda *_, **__: pytest.fail("measured again"))
    again = site_with("slow").trainings.who_teaches()
    torch.testing.assert_close(again(Batch((x,), {}, None)), taught_by(Batch((x,), {}, None)))


def test_a_teacher_that_cannot_be_exported_answers_itself(site_with, asked, monkeypatch):
    site = site_with("branching")
    with pytest.raises(RuntimeError, match="stopped"):
        site.trainings.trained(site.default, 0)
    assert asked == [site.teacher]
    # That is known the next time, too.
    monkeypatch.setattr(room, "make_files", lambda *_: pytest.fail("made again"))
    again = site_with("branching")
    assert again.trainings.who_teaches() is again.teacher


@pytest.mark.parametrize("reason", ["ranks", "gpu"])
def test_ranks_and_gpus_ask_the_teacher_itself(reason, site_with, monkeypatch):
    if reason == "gpu":
        monkeypatch.setattr(room, "files_may_teach", lambda: False)
    site = site_with("slow", ranks=2 if reason == "ranks" else 1)
    assert site.trainings.who_teaches() is site.teacher
    assert not list((site.root / "stages").glob("teaching-*"))


def test_what_all_workers_need_is_made_by_one_while_the_others_wait(site_with):
    made, site = [], site_with("slow")

    def make(folder):
        made.append(folder)
        time.sleep(0.3)
        (folder / "out").write_text("whole")

    with ThreadPoolExecutor(3) as workers:
        folders = list(workers.map(lambda _: site.common_stage("common", {}, make), range(3)))
    assert len(made) == 1
    assert {(folder / "out").read_text() for folder in folders} == {"whole"}
