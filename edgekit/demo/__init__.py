"""The main job on data that comes with the installation."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgekit.demo import digits
from edgekit.progress import Progress, silent
from edgekit.store import Store, code_digest
from edgekit.tasks import classification
from edgekit.training import FitConfig, fit
from edgekit.workload import Batch, Workload, make_splits

EPOCHS = 12
WEIGHTS = "digits.safetensors"


def digits_workload(folder: str | Path, *, seed: int = 0, progress: Progress = silent) -> Workload:
    """A small residual network for scikit-learn's digits, trained in `folder` (or taken from there), as a workload.

    Args:
        folder: of the run; the trained weights are kept below it.
        seed: of the network's first weights and of the training.
        progress: takes the ticks of the training.

    Raises:
        StoreError: `folder` cannot be written.
    """
    import torch
    from safetensors.torch import load_file, save_file

    task = classification()

    def objective(model: nn.Module, batch: Batch) -> torch.Tensor:
        return task.loss(batch.call(model), batch.target)

    def make(stage: Path) -> None:
        torch.manual_seed(seed)
        trained = fit(
            digits.untrained(),
            digits.train_data(),
            objective,
            FitConfig(epochs=EPOCHS, learning_rate=0.1, batch_size=32, seed=seed),
            checkpoint=stage / "checkpoint.pt",
            progress=progress,
        )
        save_file(trained.model.state_dict(), stage / WEIGHTS)

    stage = Store(Path(folder) / "stages").build("train", {"seed": seed, "code": code_digest()}, make)

    def trained_network() -> nn.Module:
        network = digits.untrained()
        network.load_state_dict(load_file(stage / WEIGHTS))
        return network.eval()

    return Workload(
        name="digits",
        model_reference="edgekit.demo.digits:DigitsResNet",
        factory=trained_network,
        task=task,
        splits=make_splits(
            digits.train_data(),
            digits.test_data(),
            seed=seed,
            calibration_size=128,
            sources={"train": "scikit-learn digits", "test": "scikit-learn digits"},
        ),
        labels=tuple("0123456789"),
    )
