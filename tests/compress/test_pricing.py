"""What decisions gain, on a device whose costs are known: so much for each weight, and one slow session."""

from __future__ import annotations

from types import SimpleNamespace

import onnx
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from edgekit.compress import Budget, Settings
from edgekit.compress.pricing import ORIGINAL, SESSIONS, _Speeds
from edgekit.errors import PruneError
from edgekit.export import export
from edgekit.progress import silent
from edgekit.prune import Action, analyse
from edgekit.workload import Batch

LAYERS, WIDTH, HIDDEN, LEFT = 4, 16, 32, 8


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x):
        return torch.relu(x + self.down(torch.relu(self.up(x))))


def cost(data):
    """Of the weight matrices alone, so that gains add up."""
    return 1.0 + 1e-4 * sum(
        torch.Size(tensor.dims).numel()
        for tensor in onnx.load_from_string(data).graph.initializer
        if len(tensor.dims) == 2
    )


class Device:
    """Its first session is slower by a tenth, whatever file that has."""

    predicts = False

    def __init__(self):
        self.asked = []

    def ms(self, files, *_, **__):
        self.asked.append(list(files))
        return {name: cost(data) * (1.1 if index == 0 else 1.0) for index, (name, data) in enumerate(files.items())}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(*(Layer() for _ in range(LAYERS)), nn.Linear(WIDTH, 5)).eval()
    example = Batch((torch.randn(2, WIDTH),), {}, None)
    exported = export(model, example, tmp_path_factory.mktemp("net") / "net.onnx", dynamic="batch")
    return exported, analyse(model, example)


@pytest.fixture
def speeds(network):
    exported, coupling = network
    data = TensorDataset(torch.randn(8, WIDTH), torch.zeros(8, dtype=torch.long))
    run = SimpleNamespace(
        workload=SimpleNamespace(splits=SimpleNamespace(selection=data)),
        settings=Settings(target="x86-vnni"),
        budget=Budget(time_s=300.0),
        speed=Device(),
        progress=silent,
    )
    return _Speeds(run, exported, coupling)


def narrower(layers):
    return [Action(subject=f"{layer}.up", kept=tuple(range(LEFT)), before=HIDDEN) for layer in layers]


def test_alike_decisions_are_measured_in_one_graph_and_gain_their_share(speeds):
    alike = narrower(range(1, LAYERS))  # The first one stands beside the input instead of another layer.
    keys = {speeds.add([action]) for action in alike}
    assert len(keys) == 1
    share = speeds.share(keys.pop(), alike, {})
    assert share.of == len(alike)
    ms = speeds.measured([share.key])
    # Two matrices each lose all but LEFT of HIDDEN rows or columns; the slow session is one of five.
    assert (ms[ORIGINAL] - ms[share.key]) / share.of == pytest.approx(1e-4 * 2 * WIDTH * (HIDDEN - LEFT))
    assert len(speeds.run.speed.asked[0]) == SESSIONS + 1


def test_decisions_within_others_and_those_that_do_not_go_together_stand_alone(speeds, monkeypatch):
    alike = narrower(range(1, LAYERS))
    key = speeds.add(alike[:1])
    inner, outer = alike[0].subject, alike[1].subject
    assert speeds.share(key, alike[:2], {inner: outer}) == speeds.share(key, alike[1:2], {})
    assert speeds.share(key, alike, {inner: outer}).of == len(alike) - 1
    add = speeds.add

    def refuse(actions):
        if len(actions) > 1:
            raise PruneError("not these", rule="one at a time", where="here", way_out="take one")
        return add(actions)

    monkeypatch.setattr(speeds, "add", refuse)
    share = speeds.share(key, alike, {})
    assert (share.key, share.of) == (key, 1)


def test_at_a_glance_the_original_has_one_session(speeds):
    key = speeds.add(narrower([0]))
    speeds.measured([key], glance=True)
    assert speeds.run.speed.asked == [[ORIGINAL, key]]
