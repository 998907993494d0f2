"""Limits on what changes besides the mean, as a part of the main job."""

import json
import textwrap

import pytest

from edgekit.compress import Budget, Settings, compress
from edgekit.errors import EdgekitError
from edgekit.validate.behaviour import Gates
from edgekit.workload import WorkloadConfig, load_workload

PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    # One channel is thousands of times larger than all others and means nothing: on a scale that holds it, eight bits
    # hold nothing else.

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)
        with torch.no_grad():
            self.a.weight[0] *= 4000
            self.b.weight[:, 0] = 0

    def forward(self, x):
        return self.head(torch.relu(self.b(torch.clamp(self.a(x), 0, 1e6))).mean((2, 3)))


def inputs(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 12, 12, generator=generator) * torch.rand(n, 3, 1, 1, generator=generator) * 3


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


def quantities():
    x = inputs(96, 1)
    with torch.no_grad():
        return TensorDataset(x, model()(x))


def train_data():
    return data(128, 1)


def test_data():
    return data(192, 2)
"""
SETTINGS = Settings(max_rounds=0, latency_time_s=1, robustness_time_s=30, placement="rules")


@pytest.fixture
def workload(tmp_path):
    path = tmp_path / "project.py"
    path.write_text(textwrap.dedent(PROJECT))

    def load(train="train_data", test="test_data", **options):
        config = WorkloadConfig(model=f"{path}:model", train=f"{path}:{train}", test=f"{path}:{test}", **options)
        return load_workload(config)

    return load


@pytest.mark.slow
def test_the_verdict_on_the_test_split_names_each_broken_gate(workload, tmp_path):
    # The size leaves int8 only, which loses much on inputs of any kind.
    gates = Gates(max_churn=100, max_robustness_drop=0)
    budget = Budget(max_drop=None, max_size_bytes=30_000, gates=gates, time_s=60)
    report = compress(workload(), budget, SETTINGS, out=tmp_path / "run")
    about = report.behaviour
    assert (about["reference"], about["candidate"], about["kind"]) == ("fp32", "int8", "classes")
    drop = about["robustness"]["drop"]["value"]
    assert drop > 0
    assert report.verdict.broken == (f"robustness drop {drop:.2f} points > 0.00 points",)
    assert report.verdict.text.startswith("budget missed (robustness drop ")
    assert [(gate["gate"], gate["holds"]) for gate in about["gates"]] == [
        ("max_churn", True),
        ("max_robustness_drop", False),
    ]
    row = report.row("int8")
    assert about["churn"]["changed"]["value"] == pytest.approx(100 - row.agreement.value)
    assert about["broken_samples"]["n"] == row.broken > 0
    # Pictures of the user's data stay here: a bundle goes to others.
    shown = json.loads((tmp_path / "run" / "report.json").read_text())["behaviour"]["broken_samples"]["shown"]
    assert all(each["picture"] for each in shown)
    (bundled,) = (tmp_path / "run").rglob("edgekit/report.json")
    shown = json.loads(bundled.read_text())["behaviour"]["broken_samples"]["shown"]
    assert shown
    assert not any(each["picture"] for each in shown)


def test_gates_that_no_file_could_hold_are_refused_at_once(workload, tmp_path):
    quantities = workload("quantities", "quantities", task="regression")
    budget = Budget(gates=Gates(max_worst_class_drop=1, max_ece_rise=1), time_s=60)
    with pytest.raises(EdgekitError, match=r"^no worst class's drop and no ECE rise to hold against a limit") as caught:
        compress(quantities, budget, SETTINGS, out=tmp_path / "a")
    assert "the task regression" in caught.value.rule
    unmeasured = Settings(max_rounds=0, robustness_time_s=0)
    with pytest.raises(EdgekitError, match=r"^no time to measure robustness in"):
        compress(workload(), Budget(gates=Gates(max_robustness_drop=1)), unmeasured, out=tmp_path / "b")
