from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from edgekit import tasks
from edgekit.errors import DataError, WorkloadError
from edgekit.workload import Workload, WorkloadConfig, digest_of, load_workload, make_splits

PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

def data(n, seed):
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(n, 3, generator=generator), torch.randint(0, 4, (n,), generator=generator))

def train(): return data(100, 0)
def test(): return data(40, 1)
def wide(): return TensorDataset(torch.rand(40, 5), torch.zeros(40, dtype=torch.int64))
def wrong_labels(): return TensorDataset(torch.rand(40, 3), torch.full((40,), 9))
def unlabelled(): return torch.rand(40, 3)
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train().double()
def small(): return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
def state(): return model().state_dict()
def sick():
    made = model()
    made[0].weight.data[1, 2] = float("nan")
    return made
def vast():
    made = model()
    made[0].bias.data[:] = 3e38
    made[1] = nn.Linear(4, 4).double()
    made[1].weight.data[:] = 1e3
    return made
def task():
    from edgekit import tasks
    return tasks.classification(label_smoothing=0.1)
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "net.py").write_text(PROJECT)

    def make(**changes):
        entries = {"model": "net.py:model", "train": "net.py:train", "test": "net.py:test", **changes}
        return WorkloadConfig(folder=tmp_path, **entries)

    return make


def test_a_workload_gives_a_fresh_float_model_in_eval_mode(config):
    workload = load_workload(config())
    model = workload.model()
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model is not workload.model()
    assert digest_of(model) == digest_of(workload.model())
    assert (workload.name, len(workload.example(3)), len(workload.splits.test)) == ("net-model", 3, 20)


def test_a_task_may_be_a_function(config):
    assert load_workload(config(task="net.py:task")).task.metric == "top-1 accuracy"


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"model": "net.py:state"}, WorkloadError, "the factory returned a OrderedDict"),
        ({"model": "net.py:sick"}, WorkloadError, "1 of 12 values of 0.weight are NaN or infinite"),
        ({"model": "net.py:vast"}, DataError, "output 0 is NaN or infinite for 8 of 8 samples"),
        ({"test": "net.py:wide"}, WorkloadError, r"raised on a batch of the test data: RuntimeError"),
        ({"test": "net.py:wrong_labels"}, DataError, "label 9 of sample 0 is out of range"),
        ({"test": "net.py:unlabelled"}, WorkloadError, "the data carry no target"),
        ({"task": "net.py:train"}, WorkloadError, "returned a TensorDataset"),
        ({"train": "net.py:absent"}, WorkloadError, "'absent' is missing"),
        ({"limit_train": 4}, DataError, "4 samples of 100, since the limit is 4"),
    ],
)
def test_what_does_not_fit_together_is_found_at_once(config, changes, kind, text):
    with pytest.raises(kind, match=text):
        load_workload(config(**changes))


def test_without_labels_the_original_is_the_reference(config):
    workload = load_workload(config(task="imitation", train="net.py:unlabelled", test="net.py:unlabelled"))
    model = workload.model()
    x, target = workload.splits.test[3]
    with torch.no_grad():
        assert torch.allclose(model(x[None])[0], target)
    assert workload.task.value((np.array([target.numpy()]),), np.array([target.numpy()])) == pytest.approx(100)


def test_a_module_and_data_in_memory_make_a_workload_too():
    data = [(torch.rand(3), 1)] * 40
    workload = Workload(
        name="here",
        model_reference="memory",
        factory=lambda: nn.Linear(3, 2),
        task=tasks.classification(),
        splits=make_splits(data, data),
    )
    assert workload.example().call(workload.model()).shape == (2, 2)


def test_a_digest_depends_on_every_value_and_name():
    layer = nn.Linear(2, 2)
    first = digest_of(layer)
    layer.weight.data[0, 0] = math.nextafter(layer.weight.data[0, 0].item(), 9) + 1
    assert digest_of(layer) != first


def test_images_go_through_the_preprocessing_that_the_bundle_records(config, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(40):
        folder = tmp_path / "images" / f"class{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    workload = load_workload(
        config(model="net.py:small", train="images", test="images", image_size=(4, 4), mean=(0.5,) * 3, std=(0.25,) * 3)
    )
    assert workload.labels == ("class0", "class1")
    data = workload.splits.test
    path = data.dataset.source.path / data.dataset.source.names[data.indices[0]]
    assert np.array_equal(workload.preprocessing.apply(path)[0], data[0][0].numpy())


@pytest.mark.slow
def test_the_users_project_as_it_is(shared):
    project = shared / "user-project" / "project.py"
    workload = load_workload(
        WorkloadConfig(model=f"{project}:model", train=f"{project}:train_data", test=f"{project}:test_data")
    )
    sizes = {name: entry["n"] for name, entry in workload.splits.digests().items()}
    assert sizes == {"train": 49_488, "calibration": 512, "selection": 5000, "test": 5000}
    assert workload.labels[:2] == ("airplane", "automobile")
