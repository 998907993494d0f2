"""What the trainings of a run learn from, at which rate; and the one with quantized weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from edgekit.compress.settings import Settings
from edgekit.distill import DistillConfig, distill
from edgekit.progress import Progress
from edgekit.quantize.learning.training import Trainable
from edgekit.training import FitConfig, augmented
from edgekit.workload import Workload

QUANTIZED_RATE = 0.02
"""Share of the learning rate for training with quantized weights, which has only to undo what rounding did."""


def training_data(workload: Workload, settings: Settings) -> Dataset[Any]:
    """What recoveries train on."""
    assert settings.augment != "auto"
    return augmented(workload.splits.train, settings.augment)


def fit_config(settings: Settings, *, rate: float = 1.0, seed: int = 0) -> FitConfig:
    """How recoveries train: at a share of the settings' learning rate, with a number that is added to their seed."""
    assert settings.learning_rate is not None
    assert settings.optimizer != "auto"
    return FitConfig(
        epochs=settings.recovery_epochs,
        learning_rate=rate * settings.learning_rate,
        optimizer=settings.optimizer,
        batch_size=settings.batch_size,
        seed=settings.seed + seed,
    )


def train_quantized(
    network: Trainable, workload: Workload, settings: Settings, *, deadline_s: float, progress: Progress
) -> Trainable:
    """Distill a network with quantized weights and activations from the workload's own for `deadline_s`."""
    teacher = workload.model()
    suited = settings.suited_to(teacher).suited_to_data(workload, teacher)
    result = distill(
        network,
        teacher,
        training_data(workload, suited),
        workload.task,
        # bf16 has 8 bits: the integers would be rounded again.
        DistillConfig(fit=replace(fit_config(suited, rate=QUANTIZED_RATE), precision="fp32")),
        progress=progress,
        deadline_s=deadline_s,
    )
    assert isinstance(result.model, Trainable)
    return result.model
