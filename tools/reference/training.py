"""What the projects of this folder share: where weights lie, how a network is trained, and the command line for it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from catalogue import HERE, weights_folder
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Run = Callable[[Mapping[str, np.ndarray]], tuple[np.ndarray, ...]]
"""A file of any precision, ready to run: inputs by name to outputs; the first axis counts samples."""

Objective = Callable[[nn.Module, Any], Tensor]
"""(network, `edgekit.workload.Batch`) to a scalar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A network and how it is trained.

    Args:
        network: makes it, untrained.
        epochs: passes over the training data unless the command line says otherwise.
        settings: everything else of `edgekit.training.FitConfig`.
        objective: (network, batch) to the loss; cross entropy unless given.
        score: (network, test data) to what is printed of it; the accuracy unless given.
        data: what gives training and test data, where the project's networks do not share them.
        by_hand: (epochs) to the trained network, where one loss and one optimizer will not do.
    """

    network: Callable[[], nn.Module]
    epochs: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    objective: Objective | None = None
    score: Callable[[nn.Module, Dataset[Any]], str] | None = None
    data: tuple[Callable[[], Dataset[Any]], Callable[[], Dataset[Any]]] | None = None
    by_hand: Callable[[float], nn.Module] | None = None


def data_folder() -> Path:
    """Where data sets lie unless the environment names a place: shared/data beside the checkout."""
    return HERE.parents[2] / "shared" / "data"


def trained(name: str, project: str, recipes: Mapping[str, Recipe]) -> nn.Module:
    """The network with its weights, in eval mode.

    Raises:
        FileNotFoundError: it has not been trained yet.
    """
    path = weights_folder() / f"{name}.pt"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `python tools/reference/{project} train {name}` first")
    network = recipes[name].network()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def train(name: str, recipe: Recipe, data: Dataset[Any], epochs: float) -> nn.Module:
    """Train a network by its recipe, write its weights, and return it.

    One that was interrupted goes on from its checkpoint, which lies beside the weights until they are there.
    """
    from edgekit.tasks import classification
    from edgekit.training import FitConfig, fit

    torch.manual_seed(0)
    if recipe.by_hand is not None:
        return keep(name, recipe.by_hand(epochs))
    task, checkpoint = classification(), weights_folder() / f"{name}.checkpoint.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    network = fit(
        recipe.network(),
        data,
        recipe.objective or (lambda network, batch: task.loss(batch.call(network), batch.target)),
        FitConfig(epochs=epochs, **recipe.settings),
        checkpoint=checkpoint,
        progress=_Lines(),
    ).model
    keep(name, network)
    checkpoint.unlink(missing_ok=True)
    return network


def keep(name: str, network: nn.Module) -> nn.Module:
    """Write the weights of a network, and return it."""
    path = weights_folder() / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network


@torch.no_grad()
def accuracy(network: nn.Module, data: Dataset[Any]) -> float:
    """Share of samples, or of positions where these have labels, whose largest logit is the label's, in percent."""
    network.eval()
    hits = [
        (network(*inputs).argmax(1) == label).float().flatten(1 if label.ndim > 1 else 0)
        for *inputs, label in DataLoader(data, batch_size=250)
    ]
    return 100 * float(torch.cat(hits).mean())


class _Lines:
    """A line every five seconds."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, step: Any) -> None:
        if time.monotonic() - self.last > 5:
            self.last = time.monotonic()
            figures = " ".join(f"{k} {v:.4g}" for k, v in step.figures.items())
            print(f"{step.work} {step.done}/{step.total} {figures}", flush=True)


def command_line(
    about: str | None,
    recipes: Mapping[str, Recipe],
    train_data: Callable[[], Dataset[Any]],
    test_data: Callable[[], Dataset[Any]],
) -> None:
    """`train NAME --epochs E` for a project's networks; prints their score on the test data."""
    from edgekit.export import mac_count, parameter_count
    from edgekit.workload import Batch

    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("train", help="train a network and write its weights")
    command.add_argument("network", choices=sorted(recipes))
    command.add_argument("--epochs", type=float, help="passes over the training data, if not those of the recipe")
    arguments = parser.parse_args()
    name, recipe = arguments.network, recipes[arguments.network]
    begin = time.monotonic()
    epochs = recipe.epochs if arguments.epochs is None else arguments.epochs
    learn_from, test_on = recipe.data or (train_data, test_data)
    network = train(name, recipe, learn_from(), epochs)
    seconds, data = time.monotonic() - begin, test_on()
    *inputs, _ = data[0]
    macs = mac_count(network, Batch(tuple(torch.as_tensor(x)[None] for x in inputs), {}, None))
    print(f"{name}: {macs / 1e6:.2f} M MACs, {parameter_count(network)} parameters, weights in {weights_folder()}")
    print(f"{name}: {epochs:g} epochs in {seconds:.0f} s")
    score = recipe.score or (lambda network, data: f"{accuracy(network, data):.2f} %")
    print(f"{name}: {score(network, data)} on the test split")
