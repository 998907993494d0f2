"""What `compress` puts into its report about explanations."""

import base64
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from edgekit import tasks
from edgekit.compress.explaining import PANELS, explanations
from edgekit.compress.stages import File
from edgekit.explain.pictures import SMALL_BYTES
from edgekit.export import export
from edgekit.progress import silent
from edgekit.workload import Batch


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 5, stride=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def setting(tmp_path):
    net = Net().eval()
    # A photograph compresses badly: noise is the worst case for the size of a panel.
    x = torch.randn(20, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        data = TensorDataset(x, net(x).argmax(1))
        changed = Net().eval()
        changed.load_state_dict(net.state_dict())
        changed.conv.weight += 0.02 * torch.randn(changed.conv.weight.shape, generator=torch.Generator().manual_seed(2))
    files = []
    for stage, module in (("fp32", net), ("int8", net), ("pruned-1-int8", changed)):
        exported = export(module, Batch((x[:2],), {}, None), tmp_path / f"{stage}.onnx")
        files.append(
            File(
                stage=stage,
                path=exported.path,
                spec=exported.spec,
                parameters=1,
                macs=1,
                sha256=stage,
                details={},
            )
        )
    built = []

    def stage(name, key, make):
        folder = Path(tmp_path) / "stage"
        built.append((name, key))
        make(folder)
        return folder

    workload = SimpleNamespace(
        task=tasks.classification(), splits=SimpleNamespace(test=data), labels=tuple("abcd"), image=None
    )
    run = SimpleNamespace(
        workload=workload,
        settings=SimpleNamespace(seed=0, threads=1),
        model=net,
        progress=silent,
        stage=stage,
    )
    return SimpleNamespace(run=run, files=files, built=built)


def test_the_chosen_file_is_compared_with_the_original_and_its_int8_twin(setting):
    found = explanations(setting.run, setting.files, setting.files[2], time_s=60.0)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [each["file"] for each in found["files"]] == ["int8", "pruned-1-int8"]
    twin, chosen = (each["correlation"]["value"] for each in found["files"])
    assert twin == 1.0 > chosen
    assert found["samples"]["explained"] >= 8
    assert setting.built[0][1]["files"] == ["fp32", "int8", "pruned-1-int8"]


def test_panels_are_small_pictures_with_what_they_show(setting):
    found = explanations(setting.run, setting.files, setting.files[2], time_s=60.0)
    assert len(found["panels"]) == PANELS
    for panel in found["panels"]:
        png = base64.b64decode(panel["png_base64"])
        assert len(png) <= SMALL_BYTES
        with Image.open(io.BytesIO(png)) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 10
        assert panel["class"] in "abcd"
        assert f"{panel['correlation']:.2f}" in panel["caption"]
    worst = found["files"][1]["largest_drift"][0]
    assert (found["panels"][0]["sample"], found["panels"][0]["correlation"]) == (worst["sample"], worst["correlation"])


def test_where_it_does_not_apply_the_report_says_why(setting):
    found = explanations(setting.run, setting.files, setting.files[0], time_s=60.0)
    assert found == {"notes": ["not compared: the original itself was chosen"]}
    setting.run.workload.task = tasks.regression()
    found = explanations(setting.run, setting.files, setting.files[1], time_s=60.0)
    assert found == {"notes": ["not compared: the task is regression, and only classes are explained here"]}
