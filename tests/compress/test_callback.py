import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from edgekit.compress import BundleCallback, Settings
from edgekit.device import load
from edgekit.errors import EdgekitError


def rows(n, seed):
    x = torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, (x.mean((1, 2, 3)) > 0).long()), batch_size=16)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(600)
def test_training_ends_with_a_bundle(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
            )

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch):
            return self.training_step(batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    settings = Settings(max_rounds=0, latency_time_s=1.0, robustness_time_s=0.0, placement="rules")
    callback = BundleCallback(
        out=tmp_path / "net.edgekit",
        max_drop=100,
        time="30s",
        settings=settings,
        library="lightning",
        labels=("no", "yes"),
    )
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    module = Module()
    pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **quiet).fit(module, rows(64, 1), rows(48, 2))
    model = load(tmp_path / "net.edgekit")
    assert model.check().samples > 0
    assert model.labels == ("no", "yes")


def test_a_wrong_time_is_said_before_the_training():
    with pytest.raises(EdgekitError, match="got 'soon'"):
        BundleCallback(out="x.edgekit", time="soon")
