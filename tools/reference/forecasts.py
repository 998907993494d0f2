r"""Time series as a user's project: a GRU and a TCN say how a series goes on.

    python tools/reference/forecasts.py train forecast_tcn
    edgekit compress tools/reference/forecasts.py:forecast_tcn --train tools/reference/forecasts.py:train_data \
        --test tools/reference/forecasts.py:test_data --task tools/reference/forecasts.py:task --dynamic series:1=time

The series come from stated processes. Half of them are demand with the hour and the day in it: two sines with periods
24 and 168, whose amplitudes and phases differ from series to series, and an AR(2) process with the coefficients 0.6 and
-0.2. The others are as from a sensor on a body: a step frequency that wanders as an AR(1) process, its first two
harmonics, white noise, values rounded to steps of 0.05 and one in fifty lost (0). Nobody can forecast the noise: the
innovations of demand alone have a standard deviation of 0.3.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from networks.recurrent import GRUForecaster, TCNForecaster
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset
from training import Recipe, command_line, trained

from edgekit.tasks import Task, custom, outputs_of

TIME, HORIZON = 168, 24
TRAIN, TEST = 8_000, 4_000
INNOVATION, STEP = 0.3, 0.05


def demand(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Series float64 [count, length]."""
    hours = np.arange(length)
    day = rng.uniform(0.5, 1.5, (count, 1)) * np.sin(2 * np.pi * (hours / 24 + rng.uniform(size=(count, 1))))
    week = rng.uniform(0.2, 0.8, (count, 1)) * np.sin(2 * np.pi * (hours / 168 + rng.uniform(size=(count, 1))))
    noise, burn = INNOVATION * rng.standard_normal((count, length + 50)), 50
    rest = np.zeros_like(noise)
    for t in range(2, length + burn):
        rest[:, t] = 0.6 * rest[:, t - 1] - 0.2 * rest[:, t - 2] + noise[:, t]
    return day + week + rest[:, burn:]


def sensor(rng: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Series float64 [count, length]."""
    wander = np.zeros((count, length))
    kicks = rng.standard_normal((count, length))
    for t in range(1, length):
        wander[:, t] = 0.98 * wander[:, t - 1] + 0.02 * kicks[:, t]
    phase = np.cumsum(rng.uniform(0.03, 0.08, (count, 1)) * (1 + wander), axis=1) + rng.uniform(size=(count, 1))
    signal = np.sin(2 * np.pi * phase) + rng.uniform(0, 0.5, (count, 1)) * np.sin(4 * np.pi * phase + 1)
    noisy = np.round((signal + 0.1 * rng.standard_normal((count, length))) / STEP) * STEP
    return np.where(rng.uniform(size=(count, length)) < 0.02, 0.0, noisy)


@cache
def series(split: str) -> TensorDataset:
    """Items are (float32 [TIME, 1], float32 [HORIZON])."""
    rng, count = np.random.default_rng(0 if split == "train" else 1), TRAIN if split == "train" else TEST
    length = TIME + HORIZON
    both = np.concatenate([demand(rng, count // 2, length), sensor(rng, count - count // 2, length)])
    values = torch.from_numpy(both[rng.permutation(count)].astype(np.float32))
    return TensorDataset(values[:, :TIME, None], values[:, TIME:])


def task() -> Task:
    """The root of the mean squared error of a forecast, averaged over forecasts."""
    return custom(
        name="forecasting",
        metric="RMSE of a forecast",
        unit="standard units",
        higher_is_better=False,
        loss=lambda output, target: torch.nn.functional.mse_loss(outputs_of(output)[0].float(), target),
        per_sample=lambda outputs, target: np.sqrt(((outputs[0] - target) ** 2).mean(axis=1)),
    )


@torch.no_grad()
def score(network: nn.Module, data: Dataset[Any]) -> str:
    """RMSE, beside that of repeating the value of 24 hours ago."""
    assert isinstance(data, TensorDataset)
    x, y = data.tensors
    network.eval()
    own = np.mean([float(e) for e in ((network(x) - y) ** 2).mean(1).sqrt()])
    naive = float(((x[:, -HORIZON:, 0] - y) ** 2).mean(1).sqrt().mean())
    return f"RMSE {own:.4f} (what was {HORIZON} steps ago again: {naive:.4f})"


def _objective(network: nn.Module, batch: Any) -> Tensor:
    """A part of a series of any length, so that networks do not lean on one."""
    time = int(torch.randint(TIME // 2, TIME + 1, ())) if network.training else TIME
    return torch.nn.functional.mse_loss(network(batch.args[0][:, -time:]), batch.target)


_ADAM: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 3e-3, "batch_size": 128, "clip_norm": 1.0}
RECIPES = {
    "forecast_gru": Recipe(network=GRUForecaster, epochs=8, settings=_ADAM, objective=_objective, score=score),
    "forecast_tcn": Recipe(network=TCNForecaster, epochs=8, settings=_ADAM, objective=_objective, score=score),
}


def forecast_gru() -> nn.Module:
    """The trained GRU."""
    return trained("forecast_gru", "forecasts.py", RECIPES)


def forecast_tcn() -> nn.Module:
    """The trained TCN."""
    return trained("forecast_tcn", "forecasts.py", RECIPES)


def train_data() -> TensorDataset:
    """Series to learn from."""
    return series("train")


def test_data() -> TensorDataset:
    """Series that training never sees."""
    return series("test")


if __name__ == "__main__":
    command_line(__doc__, RECIPES, train_data, test_data)
