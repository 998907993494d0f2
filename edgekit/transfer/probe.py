"""Linear probe: the best head for features that a frozen body gives, without a step of stochastic training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from edgekit.progress import Progress, Step, silent
from edgekit.tasks import Task
from edgekit.transfer.head import Head
from edgekit.workload import derive, loader

BATCH = 128
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C that are tried, as scikit-learn's LogisticRegression has it: a larger one regularizes less."""
FEATURE_BYTES = 1 << 30
"""Features are kept in memory up to this size."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """A linear layer, found by `probe`.

    Args:
        weight: float32 [outputs, width].
        bias: float32 [outputs].
        strength: the C that did best.
        metric: of the held-out features, in the task's unit.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    metric: float


def features_of(
    model: nn.Module,
    head: Head,
    data: Dataset[object],
    *,
    views: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:
    """What the head of a network reads: features float32 [views · n, width], and the targets [views · n].

    Args:
        model: in evaluation while it runs; left as it is.
        head: a linear layer that reads vectors.
        data: with targets.
        views: passes over the data, each with other augmentations.
        seed: of the augmentations.
        progress: told after each batch.
    """
    twin = copy.deepcopy(model).eval()
    heard: list[Tensor] = []
    handle = twin.get_submodule(head.name).register_forward_pre_hook(lambda _m, args: heard.append(args[0].float()))
    targets: list[Tensor] = []
    try:
        for view in range(views):
            batches = loader(data, BATCH, model=twin, seed=derive(seed, 12, view))
            for index, batch in enumerate(batches):
                with torch.no_grad():
                    batch.call(twin)
                assert isinstance(batch.target, Tensor)
                targets.append(batch.target)
                progress(Step("features", view * len(batches) + index + 1, views * len(batches)))
    finally:
        handle.remove()
    return torch.cat(heard), torch.cat(targets)


def probe(
    features: Tensor,
    targets: Tensor,
    task: Task,
    *,
    outputs: int,
    held_out: tuple[Tensor, Tensor],
    strengths: Sequence[float] = STRENGTHS,
) -> Probe:
    """The linear layer of least loss on the features, regularized as strongly as does best on held-out ones.

    Minimizes C · the sum of the task's losses + half the squared norm of the weights (not of the biases), on features
    scaled to mean 0 and deviation 1, by L-BFGS; for classification that is multinomial logistic regression.

    Args:
        features: float32 [n, width].
        targets: [n, ...].
        task: gives loss and metric.
        outputs: of the layer.
        held_out: features and targets that choose C.
        strengths: values of C to try, in rising order.
    """
    mean, deviation = features.mean(0), features.std(0, correction=0)
    deviation = torch.where(deviation > 0, deviation, 1.0)
    scaled = (features - mean) / deviation
    other, other_targets = (held_out[0] - mean) / deviation, held_out[1].numpy()
    layer = nn.Linear(features.shape[1], outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    best: Probe | None = None
    for strength in strengths:
        _minimize(layer, scaled, targets, task, strength)
        with torch.no_grad():
            answers = (layer(other).numpy(),)
        metric = task.value(answers, np.asarray(other_targets))
        if best is None or task.drop(best.metric, metric) < 0:
            weight = (layer.weight / deviation).detach().clone()
            best = Probe(
                weight=weight, bias=(layer.bias - weight @ mean).detach().clone(), strength=strength, metric=metric
            )
    assert best is not None
    return best


def _minimize(layer: nn.Linear, features: Tensor, targets: Tensor, task: Task, strength: float) -> None:
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=200, tolerance_grad=1e-6, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )
    penalty = 0.5 / (strength * len(features))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task.loss(layer(features), targets) + penalty * layer.weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call] # torch's own lacks types
