import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from edgekit.errors import WorkloadError
from edgekit.workload import from_accelerate, from_lightning
from edgekit.workload.handover import at_train_end


def rows(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long())


@pytest.fixture(params=["lightning.pytorch", "pytorch_lightning"])
def pl(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(request.param, reason=f"{request.param} is not installed")


@pytest.fixture
def module(pl):
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x):
            return self.model(x)

        def training_step(self, batch):
            x, y = batch
            return nn.functional.cross_entropy(self(x), y)

        def validation_step(self, batch):
            return self.training_step(batch)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.05)

    return Module()


@pytest.fixture
def data(pl):
    class Data(pl.LightningDataModule):
        def setup(self, stage):
            self.parts = {"train": rows(64, 1), "test": rows(32, 2), "stage": stage}

        def train_dataloader(self):
            return DataLoader(self.parts["train"], batch_size=16, shuffle=True)

        def val_dataloader(self):
            return DataLoader(self.parts["test"], batch_size=16)

    return Data()


def trainer(pl, **values):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return pl.Trainer(max_epochs=1, accelerator="cpu", **quiet, **values)


@pytest.mark.filterwarnings("ignore")
def test_a_training_hands_over_what_it_trained(pl, module, data):
    got = []
    callback = at_train_end(lambda *given: got.append(from_lightning(*given)), library=pl.__name__.partition(".")[0])
    assert isinstance(callback, pl.Callback)
    trainer(pl, callbacks=[callback]).fit(module, data)
    (workload,) = got
    made = workload.model()
    x = torch.randn(3, 4)
    with torch.no_grad():
        assert torch.equal(made(x), module.eval()(x))
    assert made is not module
    assert [len(part) for part in (workload.splits.train, workload.splits.selection, workload.splits.test)] == [
        48,
        16,
        16,
    ]


@pytest.mark.filterwarnings("ignore")
def test_loaders_without_a_datamodule_are_those_of_the_trainer(pl, module):
    got = []
    callback = at_train_end(lambda *given: got.append(from_lightning(*given)), library=pl.__name__.partition(".")[0])
    loaders = [DataLoader(rows(64, 1), batch_size=16), DataLoader(rows(32, 2), batch_size=16)]
    trainer(pl, callbacks=[callback]).fit(module, *loaders)
    assert got[0].name == "Module"


@pytest.mark.filterwarnings("ignore")
def test_a_network_in_the_module_may_be_named(module, data):
    workload = from_lightning(module, data, network="model")
    assert isinstance(workload.model(), nn.Sequential)
    with pytest.raises(WorkloadError, match="the module has no network 'net'") as caught:
        from_lightning(module, data, network="net")
    assert caught.value.rule == "one of model"


@pytest.mark.filterwarnings("ignore")
def test_data_that_are_missing_are_named(module):
    with pytest.raises(WorkloadError, match="no training data"):
        from_lightning(module)
    with pytest.raises(WorkloadError, match="no test data"):
        from_lightning(module, train=rows(64, 1))


class Accelerator:
    """As accelerate's own, where that is not installed."""

    def unwrap_model(self, model, *, keep_fp32_wrapper):
        assert not keep_fp32_wrapper
        return model.module


def test_a_model_comes_out_of_what_accelerate_wrapped_it_in():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(4, 2)

    wrapped = Wrapped()
    workload = from_accelerate(
        Accelerator(), wrapped, train=rows(64, 1), test=DataLoader(rows(32, 2)), labels=("a", "b")
    )
    assert torch.equal(workload.model().weight, wrapped.module.weight)
    assert (workload.name, workload.labels) == ("Linear", ("a", "b"))


@pytest.mark.filterwarnings("ignore")
def test_accelerate_itself():
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    network, loader = nn.Linear(4, 2), DataLoader(rows(64, 1), batch_size=16)
    weight = network.weight.detach().clone()
    model, loader = accelerator.prepare(network, loader)
    workload = from_accelerate(accelerator, model, train=loader, test=rows(32, 2))
    assert np.array_equal(workload.model().weight.detach(), weight)


def test_without_lightning_it_says_what_to_install(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(WorkloadError, match="Lightning is not installed") as caught:
        at_train_end(print)
    assert caught.value.way_out == "pip install 'edgekit[lightning]'"
