"""Who teaches in recoveries: the network, or a file of it that answers faster and as well."""

import json
import textwrap

import pytest

from edgekit.compress import Budget, Settings
from edgekit.compress import teaching as room
from edgekit.compress.run import Run
from edgekit.compress.stages import exported_file, quantized_file
from edgekit.compress.teaching import teaching
from edgekit.progress import silent
from edgekit.quantize.targets import target_here
from edgekit.store import Store
from edgekit.training import Choice
from edgekit.transfer import Teaching
from edgekit.transfer.fastest import NETWORK
from edgekit.workload import config_from, load_workload

PROJECT = """
import time

import torch
from torch import nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    # Every answer in PyTorch takes 50 ms longer than it has to.

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3), nn.Linear(16, 4)

    def forward(self, x):
        if not torch.compiler.is_compiling():
            time.sleep(0.05)
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return {"logits": self.head(x.mean((2, 3)))}


def model():
    torch.manual_seed(0)
    return Net().eval()


def data():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(96, 3, 12, 12, generator=generator), torch.arange(96) % 4)
"""
PLAIN = Choice(precision="fp32", channels_last=False, workers=0, step_s=0.1)


@pytest.fixture(scope="module")
def workload(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "net.py").write_text(textwrap.dedent(PROJECT))
    return load_workload(
        config_from({"model": "net.py:model", "train": "net.py:data", "test": "net.py:data"}, folder=folder)
    )


def run_in(folder, workload):
    settings = Settings(batch_size=32, augment="none")
    return Run(Store(folder / "stages"), workload, Budget(max_drop=1.0), settings, progress=silent)


@pytest.fixture
def run(workload, tmp_path):
    return run_in(tmp_path, workload)


@pytest.fixture(scope="module")
def files(workload, tmp_path_factory):
    run = run_in(tmp_path_factory.mktemp("run"), workload)
    original = exported_file(run, "fp32", run.model, {})
    return [original, quantized_file(run, "int8", original, target=target_here())]


def test_the_fastest_that_answers_alike_teaches_and_is_not_looked_for_twice(run, files, monkeypatch):
    first = teaching(run, files)
    assert first.taught_by in {"fp32", "int8"}
    (about,) = (json.loads(path.read_text()) for path in run._store.root.glob("teaching-*/teaching.json"))
    assert about["taught_by"] == first.taught_by
    assert set(about["teachers"]) == {NETWORK, "fp32", "int8"}
    monkeypatch.setattr(room, "fastest_teacher", lambda *_, **__: pytest.fail("measured again"))
    again = teaching(run, files)
    assert (again.choice, again.taught_by) == (first.choice, first.taught_by)


def test_an_int8_file_is_asked_as_on_the_cpu_that_it_is_for(run, files, monkeypatch):
    seen = []

    def looked_at(model, stand_ins, **_):
        seen.extend((each.name, each.target) for each in stand_ins)
        return Teaching(choice=PLAIN, taught_by=NETWORK, teacher=model)

    monkeypatch.setattr(room, "fastest_teacher", looked_at)
    assert teaching(run, files).teacher is run.model
    assert seen == [("fp32", "any"), ("int8", run.settings.target)]
