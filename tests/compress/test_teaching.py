"""Who teaches in recoveries: the network, or a file of it that answers faster and as well."""

import json
import textwrap

import numpy as np
import pytest
import torch

from edgekit.compress import Budget, Settings
from edgekit.compress import teaching as room
from edgekit.compress.run import Run
from edgekit.compress.stages import exported_file, quantized_file
from edgekit.compress.teaching import teaching
from edgekit.device.session import open_session
from edgekit.device.variants import exact_config
from edgekit.progress import silent
from edgekit.quantize.targets import target_here
from edgekit.store import Store
from edgekit.training import Choice
from edgekit.transfer import Teaching
from edgekit.transfer.fastest import NETWORK
from edgekit.workload import Batch, config_from, load_workload

PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3), nn.Flatten(), nn.Linear(256, 4)).eval()


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


@pytest.fixture
def found(monkeypatch):
    """Has a measurement end so; what it was asked about."""

    def to_be(taught_by):
        asked = []

        def measured(model, stand_ins, **_):
            asked.extend((each.name, each.target) for each in stand_ins)
            return Teaching(choice=PLAIN, taught_by=taught_by, teacher=model, measured={taught_by: {"seconds": 1.0}})

        monkeypatch.setattr(room, "fastest_teacher", measured)
        return asked

    return to_be


def test_the_file_that_was_found_teaches_and_is_not_looked_for_twice(run, files, found):
    asked = found("int8")
    first, again = teaching(run, files), teaching(run, files)
    assert asked == [("fp32", "any"), ("int8", run.settings.target)]
    assert (first.choice, first.taught_by) == (again.choice, again.taught_by) == (PLAIN, "int8")
    # Its answers are those of the int8 file: steps of a quantizer, not what the network says.
    x = torch.randn(5, 3, 12, 12)
    session = open_session(files[1].path, threads=1, config=exact_config(run.settings.target))
    (said,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_array_equal(again.teacher(Batch((x,), {}, None)).numpy(), said)
    with torch.no_grad():
        assert np.abs(run.model(x).numpy() - said).max() > 0


def test_where_the_network_is_fastest_it_teaches(run, files, found):
    found(NETWORK)
    assert teaching(run, files).teacher is run.model


def test_a_run_measures_who_teaches(run, files):
    teaching(run, files)
    (about,) = (json.loads(path.read_text()) for path in run._store.root.glob("teaching-*/teaching.json"))
    assert set(about["teachers"]) == {NETWORK, "fp32", "int8"}
    assert about["taught_by"] in about["teachers"]
