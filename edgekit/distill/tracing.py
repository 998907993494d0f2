"""Which modules a network calls, in which order, and what they are given and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit.workload import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """A module's last call.

    Args:
        name: from `named_modules()`.
        began: its place among all begins and ends.
        ended: likewise.
        given: its first tensor argument, if it has one.
        output: the first tensor that it returned, if there is one.
    """

    name: str
    began: int
    ended: int
    given: Tensor | None
    output: Tensor | None


def traced(model: nn.Module, batch: Batch) -> tuple[tuple[Call, ...], Any]:
    """The last call of each module below `model` (not of itself), in the order in which they ended, and the answer.

    `model` should be in evaluation; it is left as it is.

    >>> calls, _ = traced(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), Batch((torch.ones(1, 2),), {}, None))
    >>> [(call.name, tuple(call.output.shape)) for call in calls]
    [('0', (1, 3)), ('1', (1, 3))]
    """
    clock, begun = 0, dict[str, int]()
    calls: dict[str, Call] = {}

    def tick() -> int:
        nonlocal clock
        clock += 1
        return clock

    def before(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(_module: nn.Module, _args: Any) -> None:
            begun[name] = tick()

        return hook

    def after(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            calls[name] = Call(
                name=name, began=begun[name], ended=tick(), given=_first((args, kwargs)), output=_first(output)
            )

        return hook

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(before(name)))
            handles.append(module.register_forward_hook(after(name), with_kwargs=True))
    try:
        with torch.no_grad():
            answer = batch.call(model)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(sorted(calls.values(), key=lambda call: call.ended)), answer


def _first(value: Any) -> Tensor | None:
    return next((leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)), None)
