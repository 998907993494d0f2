"""Who teaches in recoveries: the network, or a file of it that answers faster and as well."""

import json
import math
import textwrap

import pytest
import torch

from edgekit.compress import Budget, Settings
from edgekit.compress import teaching as room
from edgekit.compress.run import Run
from edgekit.compress.stages import exported_file, quantized_file
from edgekit.compress.teaching import NETWORK, file_teacher, likeness_db, teaching
from edgekit.progress import silent
from edgekit.quantize.targets import target_here
from edgekit.store import Store
from edgekit.training import Choice
from edgekit.workload import Batch, config_from, load_workload

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


def test_a_file_teaches_where_the_network_is_slow(run, files):
    taught = teaching(run, files)
    assert taught.taught_by in {"fp32", "int8"}
    (about,) = (json.loads(path.read_text()) for path in run._store.root.glob("teaching-*/teaching.json"))
    seconds = {name: found["seconds"] for name, found in about["teachers"].items()}
    assert min(seconds, key=seconds.get) == taught.taught_by or seconds[taught.taught_by] < 0.05
    assert seconds[NETWORK] > 0.05
    x = torch.randn(5, 3, 12, 12)
    with torch.no_grad():
        truth = run.model(x)["logits"]
    said = taught.teacher(Batch((x,), {}, None))
    assert list(said) == ["logits"]
    noise = float((said["logits"] - truth).square().sum() / truth.square().sum())
    assert noise < 10 ** (-room.FAITHFUL_DB / 10)


def test_what_was_found_once_stays(run, files, monkeypatch):
    first = teaching(run, files)
    monkeypatch.setattr(room, "setting_for", lambda *_: pytest.fail("measured again"))
    again = teaching(run, files)
    assert (again.choice, again.taught_by) == (first.choice, first.taught_by)


def test_a_file_with_other_answers_does_not_teach(run, files, monkeypatch):
    monkeypatch.setattr(room, "FAITHFUL_DB", 1000.0)
    taught = teaching(run, files)
    assert taught.taught_by == NETWORK
    assert taught.teacher is run.model


def test_what_a_file_does_not_take_the_network_answers(run, files):
    teacher = file_teacher(run, files[0], PLAIN)
    x = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        truth = run.model(x)["logits"]
    torch.testing.assert_close(teacher(Batch((x,), {}, None))["logits"], truth)


def test_likeness_is_of_the_worst_tensor():
    truth = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([1.0]), "c": None}
    said = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([1.0]), "c": None}
    assert likeness_db(truth, said) == pytest.approx(20.0)  # 25 over a quarter
    assert likeness_db(truth, truth) == 200.0
    assert likeness_db(truth, {**said, "b": torch.ones(2)}) == -math.inf
    assert likeness_db(truth, {**said, "b": torch.tensor([math.nan])}) == -math.inf
    assert likeness_db(torch.tensor([1, 2]), torch.tensor([1, 3])) == -math.inf
    assert likeness_db((truth["a"],), truth["a"]) == -math.inf
