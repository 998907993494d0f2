"""Weights of a trained network for another one that is alike."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed:
    """A network with what it could take from another.

    Args:
        model: the network.
        whole: names of tensors that were taken as they are.
        sliced: names of those of which the first channels were taken.
        fresh: names of those that keep their initial values.
    """

    model: nn.Module
    whole: tuple[str, ...]
    sliced: tuple[str, ...]
    fresh: tuple[str, ...]


def warm_start(model: nn.Module, state: Mapping[str, Tensor]) -> Warmed:
    """A copy of `model` with the tensors of `state` wherever names and shapes allow.

    A tensor that is smaller than its namesake in some dimensions and larger in none takes the first entries of each:
    the channels that are left fit those of its neighbours, which are cut alike (as in J. Yu et al., *Slimmable Neural
    Networks*, 2019). One that is larger keeps its initial values.

    >>> made = warm_start(nn.Linear(2, 2), {"weight": nn.Linear(3, 2).weight, "bias": nn.Linear(1, 2).bias})
    >>> made.whole, made.sliced
    (('bias',), ('weight',))
    """
    twin = copy.deepcopy(model)
    mine = twin.state_dict()
    whole: list[str] = []
    sliced: list[str] = []
    fresh: list[str] = []
    for name, tensor in mine.items():
        given = state.get(name)
        if given is None or not _holds(given, tensor):
            fresh.append(name)
            continue
        tensor.copy_(given[tuple(slice(size) for size in tensor.shape)])
        (whole if given.shape == tensor.shape else sliced).append(name)
    twin.load_state_dict(mine)
    return Warmed(model=twin, whole=tuple(whole), sliced=tuple(sliced), fresh=tuple(fresh))


def _holds(given: Tensor, wanted: Tensor) -> bool:
    """Whether `given` is at least as large as `wanted` in every dimension."""
    same = given.ndim == wanted.ndim
    return same and all(mine <= theirs for mine, theirs in zip(wanted.shape, given.shape, strict=True))
