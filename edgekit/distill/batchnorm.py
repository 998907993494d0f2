"""BatchNorm statistics estimated anew."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekit.errors import DataError
from edgekit.workload import Batch


def reestimate_batchnorm(
    model: nn.Module, batches: Iterable[Batch], *, chosen: Callable[[str], bool] = lambda _name: True
) -> nn.Module:
    """A copy of `model` whose BatchNorm means and variances are those of `batches`.

    Pruning changes what a BatchNorm layer sees; its old statistics then cost more accuracy than the missing channels.
    Statistics are the equally weighted averages over the batches, as `torch.nn.BatchNorm2d(momentum=None)` keeps them;
    the normalization inside a batch is the batch's own. Dropout stays off.

    Args:
        model: left as it is; returned as a plain copy where it has no BatchNorm with running statistics.
        batches: of equal size, some hundreds of samples in all.
        chosen: which layers, by name; the others normalize by the statistics that they have.

    Raises:
        DataError: there is no batch.

    >>> norm = reestimate_batchnorm(nn.BatchNorm1d(1), [Batch((torch.tensor([[1.0], [3.0]]),), {}, None)])
    >>> norm.running_mean.item(), norm.running_var.item()
    (2.0, 2.0)
    """
    fresh = copy.deepcopy(model).eval()
    norms = [norm for name, norm in _norms(fresh).items() if chosen(name)]
    if not norms:
        return fresh
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    count = 0
    with torch.no_grad():
        for batch in batches:
            batch.call(fresh)
            count += 1
    if not count:
        raise DataError("no batch", where="reestimate_batchnorm", rule="at least one batch of calibration samples")
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return fresh.eval()


def with_batch_statistics(model: nn.Module) -> nn.Module:
    """`model` itself in eval mode, but for its BatchNorm layers: those normalize by the batch that they are given.

    What `reestimate_batchnorm` leads to, near enough, in one pass over the data instead of two.

    >>> norm = with_batch_statistics(nn.BatchNorm1d(1))
    >>> norm(torch.tensor([[1.0], [3.0]])).round().tolist()
    [[-1.0], [1.0]]
    """
    model.eval()
    for norm in _norms(model).values():
        norm.train()
    return model


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    return {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
