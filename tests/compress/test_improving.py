"""The quantization ladder as a part of the main job: where int8 alone breaks the budget."""

import json
import textwrap

import numpy as np
import onnxruntime
import pytest

from edgekit.compress import Budget, Settings, compress
from edgekit.validate.behaviour import Gates
from edgekit.workload import WorkloadConfig, load_workload

PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    # One channel is thousands of times larger than all others and means nothing: on a scale that holds it, eight bits
    # hold nothing else. The limit, which nothing reaches, keeps equalization from it.

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.c = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)
        with torch.no_grad():
            self.a.weight[0] *= 4000
            self.b.weight[:, 0] = 0

    def forward(self, x):
        x = torch.clamp(self.a(x), 0, 1e6)
        return self.head(torch.relu(self.c(torch.relu(self.b(x)))).mean((2, 3)))


def inputs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 16, 12, 12, generator=generator) * torch.rand(n, 16, 1, 1, generator=generator) * 3


def model():
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():  # All classes occur.
        logits = net(inputs(256, 3))
        net.head.bias -= logits.mean(0)
        net.head.weight /= logits.std(0)[:, None]
        net.head.bias /= logits.std(0)
    return net


def data(n, seed):
    x = inputs(n, seed)
    with torch.no_grad():
        return TensorDataset(x, model()(x).argmax(1))


def train_data():
    return data(128, 1)


def test_data():
    return data(192, 2)
"""


def answers(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0].argmax(1)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "project.py"
    path.write_text(textwrap.dedent(PROJECT))
    return WorkloadConfig(model=f"{path}:model", train=f"{path}:train_data", test=f"{path}:test_data")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_int8_that_loses_too_much_is_improved_and_the_rungs_are_told(config, tmp_path):
    settings = Settings(max_rounds=0, latency_time_s=2)
    report = compress(load_workload(config), Budget(max_drop=3.0, time_s=60), settings, out=tmp_path / "run")
    plain, improved = report.row("int8"), report.row("int8-improved")
    assert plain.drop.value > 3
    assert improved.drop.value < plain.drop.value
    rungs = improved.details["rungs"]
    assert rungs[0]["name"] == "post-training"
    assert rungs[0]["drop"] > 3
    assert any(rung["kept"] and rung["gain"] > 0 for rung in rungs[1:])
    assert next(note for note in report.notes if note.startswith("int8: ")).startswith("int8: post-training: drop ")
    # The rungs are in the report as it lies on disk, and a second call takes them from there.
    saved = json.loads((tmp_path / "run" / "report.json").read_text())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "int8-improved" in page
    assert f"{report.row(report.verdict.chosen).ratio_to_fp32.value:.2f}×" in page
    again = compress(load_workload(config), Budget(max_drop=3.0, time_s=60), settings, out=tmp_path / "run")
    assert again.to_dict()["stages"] == saved["stages"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_int8_that_breaks_a_gate_is_improved_though_its_drop_is_small_enough(config, tmp_path):
    settings = Settings(max_rounds=0, latency_time_s=2, robustness_time_s=0)
    budget = Budget(max_drop=90.0, time_s=60, gates=Gates(max_churn=6.0))
    report = compress(load_workload(config), budget, settings, out=tmp_path / "run")
    plain, improved = report.row("int8"), report.row("int8-improved")
    assert plain.drop.value < 90
    test = load_workload(config).splits.test
    x = np.stack([np.asarray(test[index][0]) for index in range(len(test))])
    said = {row.stage: answers(row.file, x) for row in (report.row("fp32"), plain, improved)}
    churn = {stage: 100 * (classes != said["fp32"]).mean() for stage, classes in said.items()}
    assert churn["int8"] > 6.0
    assert churn["int8-improved"] < churn["int8"]
    assert len(improved.details["rungs"]) > 1
