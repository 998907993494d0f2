"""Which optimizer a network gets where nobody names one."""

import pytest
from torch import nn

from edgekit.compress import Settings
from edgekit.training import suited_optimizer


class T5LayerNorm(nn.Module):
    """As transformers has it: no class of torch's."""


CONVOLUTIONS = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        (nn.Sequential(*CONVOLUTIONS), "sgd"),
        (nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(8, 2)), "sgd"),
        (nn.Sequential(*CONVOLUTIONS, nn.LayerNorm(8)), "adamw"),
        (nn.Sequential(*CONVOLUTIONS, T5LayerNorm()), "adamw"),
        (nn.Sequential(nn.BatchNorm1d(4), nn.GRU(4, 4)), "adamw"),
        (nn.TransformerEncoderLayer(8, 2), "adamw"),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8)), "adamw"),
        (nn.Linear(3, 2), "adamw"),
    ],
    ids=str,
)
def test_batchnorm_alone_asks_for_sgd(network, optimizer):
    assert suited_optimizer(network) == optimizer


def test_what_is_named_stays():
    network = nn.TransformerEncoderLayer(8, 2)
    open_ones = Settings()
    assert (open_ones.optimizer, open_ones.learning_rate) == ("auto", None)
    named = Settings(optimizer="sgd", learning_rate=0.2).suited_to(network)
    assert (named.optimizer, named.learning_rate) == ("sgd", 0.2)
    half = Settings(optimizer="sgd").suited_to(network)
    assert (half.optimizer, half.learning_rate) == ("sgd", 0.06)
    convolutions = Settings(learning_rate=0.1).suited_to(nn.Sequential(*CONVOLUTIONS))
    assert (convolutions.optimizer, convolutions.learning_rate) == ("sgd", 0.1)
    assert Settings().suited_to(network).suited_to(nn.Sequential(*CONVOLUTIONS)).optimizer == "adamw"
