"""A finalist whose int8 file misses the limits that its fp32 file holds."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from edgekit.search import SearchSettings, improving
from edgekit.search.finalists import _exported, _files
from edgekit.search.site import Site
from edgekit.search.trainings import WEIGHTS
from edgekit.validate.behaviour import Gates
from edgekit.workload import WorkloadConfig
from tests.marks import seldom

PROJECT = """
import edgekit
import torch
from torch import nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    # The second convolution reads a channel of 3000 beside some between 0 and 1: of these, 8 bits leave nothing.

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width + 1, 16, 3, padding=1)
        self.third, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 3)
        nn.init.zeros_(self.second.weight[:, -1])

    def features(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(torch.cat([x, x[:, :1] * 0 + 3000], 1)))
        return torch.relu(self.third(x)).mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


def network():
    width = edgekit.choice("width", [8, 16])
    torch.manual_seed(0)
    with torch.no_grad():
        net = Net(width).eval()
        # The head is fitted by least squares: nothing has to be trained.
        features = net.features(pictures(192, 1))
        wanted = torch.eye(3)[torch.arange(192) % 3]
        ones = torch.ones(192, 1)
        fitted = torch.linalg.lstsq(torch.cat([features, ones], 1), wanted).solution
        net.head.weight.copy_(fitted[:-1].T)
        net.head.bias.copy_(fitted[-1])
    return net


def pictures(n, seed):
    # Of three kinds, each brighter in another colour.
    x = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    x[torch.arange(n), torch.arange(n) % 3] += 2
    return x


def data(n, seed):
    return TensorDataset(pictures(n, seed), torch.arange(n) % 3)


def train_data():
    return data(400, 2)


def test_data():
    return data(64, 3)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("project") / "net.py"
    path.write_text(PROJECT)
    names = {"model": "network", "train": "train_data", "test": "test_data"}
    return WorkloadConfig(**{what: f"{path}:{name}" for what, name in names.items()}, calibration_size=64, name="net")


@pytest.fixture
def files(config, tmp_path):
    """The files of the default network as a finalist of a search with these limits."""

    def of(**limits):
        settings = SearchSettings(placement="rules", time_s=600.0, **limits)
        site = Site(config, settings, tmp_path)
        folder = tmp_path / "trained"
        folder.mkdir(exist_ok=True)
        save_file(site.network(site.default).state_dict(), folder / WEIGHTS)
        reference = _exported(site, "reference", site.default, "given", lambda: site.network(site.default))
        return site, _files(site, "a", site.default, folder, reference)

    return of


def accuracy(path, site):
    x, y = (torch.stack([torch.as_tensor(item[part]) for item in site.workload.splits.selection]) for part in (0, 1))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return 100 * float(np.mean(logits.argmax(1) == y.numpy()))


@pytest.mark.parametrize("limits", [seldom({"max_drop": 3.0}), {"gates": Gates(max_churn=3.0)}])
def test_the_layers_that_8_bits_ruin_go_back_to_fp32(limits, files, monkeypatch):
    site, (fp32, int8, better) = files(**limits)
    assert accuracy(fp32.path, site) == 100.0
    assert accuracy(int8.path, site) < 90.0
    assert accuracy(better.path, site) >= 97.0
    assert (better.name, better.precision) == ("a-improved", "int8")
    assert "mixed precision" in [rung["name"] for rung in better.rungs if rung["kept"]]
    # Something is in int8 still.
    kinds = {node.op_type for node in _graph(better.path)}
    assert "QuantizeLinear" in kinds
    monkeypatch.setattr(improving, "climb", lambda *_, **__: pytest.fail("climbed again"))
    again = files(**limits)[1]
    assert [made.sha256 for made in again] == [fp32.sha256, int8.sha256, better.sha256]
    assert again[-1].rungs == better.rungs


def test_without_limits_or_within_them_nothing_climbs(files, monkeypatch):
    monkeypatch.setattr(improving, "climb", lambda *_, **__: pytest.fail("climbed"))
    assert [made.name for made in files()[1]] == ["a", "a-int8"]
    assert [made.name for made in files(max_drop=100.0)[1]] == ["a", "a-int8"]


def _graph(path):
    import onnx

    return onnx.load(path).graph.node
