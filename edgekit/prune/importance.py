"""How much each channel matters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from edgekit.errors import PruneError
from edgekit.prune.coupling import ChannelGroup, Coupling, tensors_of
from edgekit.workload import Batch

Method = Literal["taylor", "bn-scale", "l1", "l2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """For each group the importance of its channels, float64 [channels]; only the order and ratios mean something."""

    method: str
    channels: Mapping[str, np.ndarray]


def importance(
    model: nn.Module,
    coupling: Coupling,
    *,
    method: Method = "taylor",
    batches: Sequence[Batch] = (),
    loss: Callable[[Any, Any], Tensor] | None = None,
) -> Importance:
    """Rank the channels of every group.

    Methods:
        taylor: the squared first-order change of the loss, (sum of gradient times weight over the channel's slices)²,
            summed over the batches (P. Molchanov et al., *Importance Estimation for Neural Network Pruning*, 2019,
            eq. 8); needs `batches` and `loss`.
        bn-scale: the mean |gamma| of its BatchNorm layers (Z. Liu et al., *Network Slimming*, 2017, section 3).
        l1, l2: the norm of the filters that make it (H. Li et al., *Pruning Filters*, 2017, section 3.1).

    Args:
        model: left as it is.
        coupling: of the model.
        method: one of these.
        batches: calibration data with targets.
        loss: (outputs, target) to a scalar.

    Raises:
        PruneError: an unknown method, no data for `taylor`, or no BatchNorm where `bn-scale` needs it.
    """
    if method == "taylor":
        if not batches or loss is None:
            raise PruneError("no batches or no loss", where="importance", rule="taylor needs both", way_out="or use l2")
        values = _taylor(model, coupling, batches, loss)
    elif method == "bn-scale":
        state = _state(model)
        values = {group.name: _scales(group, coupling, state) for group in coupling.groups}
    elif method in ("l1", "l2"):
        state = _state(model)
        values = {group.name: _norms(group, coupling, state, 1 if method == "l1" else 2) for group in coupling.groups}
    else:
        raise PruneError(f"unknown {method!r}", where="--importance", rule="taylor, bn-scale, l1 or l2")
    return Importance(method=method, channels=values)


def _state(model: nn.Module) -> dict[str, np.ndarray]:
    # Not `state_dict`: a fixed filter may be a buffer that it leaves out.
    return {name: value.detach().double().cpu().numpy() for name, value in tensors_of(model).items()}


def _slice_sums(tensor: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(index for index in range(tensor.ndim) if index != axis)
    return np.asarray(tensor.sum(axis=others))


def _taylor(
    model: nn.Module, coupling: Coupling, batches: Sequence[Batch], loss: Callable[[Any, Any], Tensor]
) -> dict[str, np.ndarray]:
    twin = copy.deepcopy(model).eval()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    totals = {group.name: np.zeros(len(group)) for group in coupling.groups}
    for batch in batches:
        twin.zero_grad(set_to_none=True)
        loss(batch.call(twin), batch.target).backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        products = {
            name: (parameter.grad * parameter).detach().double().numpy()
            for name, parameter in twin.named_parameters()
            if parameter.grad is not None
        }
        sums: dict[tuple[str, int], np.ndarray] = {}
        for group in coupling.groups:
            change = np.zeros(len(group))
            for name, axis in group.tensors:
                # Only the weights that make the channel: what reads it has gradients of the same origin.
                if name in products and coupling.producers.get(name, 0) == axis:
                    if (name, axis) not in sums:
                        sums[name, axis] = _slice_sums(products[name], axis)
                    change += [sums[name, axis][list(channel[name, axis])].sum() for channel in group.channels]
            totals[group.name] += change**2
    return totals


def _scales(group: ChannelGroup, coupling: Coupling, state: Mapping[str, np.ndarray]) -> np.ndarray:
    names = [(name, axis) for name, axis in group.tensors if name in coupling.scales]
    if not names:
        raise PruneError(
            "no BatchNorm on these channels", where=group.name, rule="bn-scale needs one", way_out="use taylor or l2"
        )
    return np.array(
        [np.mean([np.abs(state[key[0]][list(channel[key])]).mean() for key in names]) for channel in group.channels]
    )


def _norms(group: ChannelGroup, coupling: Coupling, state: Mapping[str, np.ndarray], order: int) -> np.ndarray:
    makers = [(name, axis) for name, axis in group.tensors if coupling.producers.get(name) == axis]
    result = np.zeros(len(group))
    for name, axis in makers:
        sums = _slice_sums(np.abs(state[name]) ** order, axis)
        result += [sums[list(channel[name, axis])].sum() for channel in group.channels]
    return result if order == 1 else np.sqrt(result)
