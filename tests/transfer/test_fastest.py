"""Who answers for a network: itself, or a file of it that answers faster and as well."""

from __future__ import annotations

import math
import time

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit.distill import DistillConfig
from edgekit.export import export
from edgekit.quantize import quantize
from edgekit.quantize.targets import target_here
from edgekit.tasks import classification
from edgekit.training import Choice, FitConfig
from edgekit.transfer import StandIn, Teaching, fastest, fastest_teacher
from edgekit.transfer.fastest import NETWORK, file_teacher, likeness_db
from edgekit.workload import Batch

PLAIN = Choice(precision="fp32", channels_last=False, workers=0, step_s=0.1)


class Slow(nn.Module):
    """Every answer in PyTorch takes 50 ms longer than it has to."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3), nn.Linear(16, 4)

    def forward(self, x):
        if not torch.compiler.is_compiling():
            time.sleep(0.05)
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return {"logits": self.head(x.mean((2, 3)))}


@pytest.fixture(scope="module")
def slow():
    torch.manual_seed(0)
    return Slow().eval()


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(96, 3, 12, 12, generator=generator), torch.arange(96) % 4)


@pytest.fixture(scope="module")
def example(data):
    return Batch((data.tensors[0][:2],), {}, None)


@pytest.fixture(scope="module")
def files(slow, data, example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    exported = export(slow, example, folder / "fp32.onnx")
    feeds = [{exported.spec.inputs[0].name: data.tensors[0][:32].numpy()}]
    made = quantize(exported.path, feeds, folder / "int8.onnx", spec=exported.spec, placement="rules")
    return [
        StandIn(name="fp32", path=exported.path, spec=exported.spec),
        StandIn(name="int8", path=made.path, spec=made.spec, target=target_here()),
    ]


@pytest.fixture
def found(slow, data, example):
    def among(files):
        return fastest_teacher(
            slow,
            files,
            student=slow,
            train=data,
            task=classification(),
            config=DistillConfig(fit=FitConfig(epochs=1, batch_size=32)),
            example=example,
        )

    return among


def test_a_file_teaches_where_the_network_is_slow(slow, files, found):
    teaching = found(files)
    assert teaching.taught_by in {"fp32", "int8"}
    seconds = {name: about["seconds"] for name, about in teaching.measured.items()}
    assert seconds[NETWORK] > 0.05
    assert seconds[teaching.taught_by] < seconds[NETWORK]
    x = torch.randn(5, 3, 12, 12)
    with torch.no_grad():
        truth = slow(x)["logits"]
    said = teaching.teacher(Batch((x,), {}, None))
    assert list(said) == ["logits"]
    noise = float((said["logits"] - truth).square().sum() / truth.square().sum())
    assert noise < 10 ** (-fastest.FAITHFUL_DB / 10)


def test_what_was_found_is_read_back(slow, files, found, example):
    first = found(files)
    again = Teaching.from_dict(first.to_dict(), slow, files, example)
    assert (again.choice, again.taught_by, again.measured) == (first.choice, first.taught_by, first.measured)
    x = torch.randn(4, 3, 12, 12)
    batch = Batch((x,), {}, None)
    torch.testing.assert_close(again.teacher(batch)["logits"], first.teacher(batch)["logits"])


def test_a_file_with_other_answers_does_not_teach(slow, files, found, monkeypatch):
    monkeypatch.setattr(fastest, "FAITHFUL_DB", 1000.0)
    teaching = found(files)
    assert teaching.taught_by == NETWORK
    assert teaching.teacher is slow
    assert set(teaching.measured) == {NETWORK, "fp32", "int8"}


def test_without_files_or_on_a_gpu_the_network_teaches(slow, files, found, monkeypatch):
    assert found([]).teacher is slow
    monkeypatch.setattr(fastest, "files_may_teach", lambda: False)
    assert found(files).teacher is slow


def test_what_a_file_does_not_take_the_network_answers(slow, files, example):
    teacher = file_teacher(files[0], slow, example, PLAIN)
    x = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        truth = slow(x)["logits"]
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
