"""Cutting a network where a single value carries everything on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgekit.quantize.learning.network import Call, Network


@dataclass(frozen=True, slots=True)
class Block:
    """Calls between two cuts.

    Args:
        calls: in their order.
        output: the value that leaves it; of the last block, the first of the graph's outputs.
    """

    calls: tuple[Call, ...]
    output: str


def blocks_of(network: Network, learned: Collection[str]) -> list[Block]:
    """The smallest blocks that hold a learned call each; the last one takes what is left.

    Between two blocks exactly one value is alive, so that a block can be computed from what the one before it gives: a
    residual block is one, as in Y. Li et al., *BRECQ*, 2021, section 3.2, and a convolution in a chain, too.

    Args:
        network: the graph.
        learned: names of calls whose weights are learned.
    """
    last_use: dict[str, int] = dict.fromkeys(network.outputs, len(network.calls))
    for index, call in enumerate(network.calls):
        for name in call.inputs:
            if name and not network.is_constant(name):
                last_use[name] = max(last_use.get(name, 0), index)
    alive = {name for name in network.inputs if name in last_use}
    found: list[Block] = []
    pending: list[Call] = []
    for index, call in enumerate(network.calls):
        pending.append(call)
        alive = {name for name in {*alive, *call.outputs} if last_use.get(name, -1) > index}
        if len(alive) == 1 and alive == set(call.outputs) & alive and _any(pending, learned):
            found.append(Block(tuple(pending), next(iter(alive))))
            pending = []
    if not pending:
        return found
    # What is left has no cut behind it: it ends in the outputs.
    if _any(pending, learned) or not found:
        return [*found, Block(tuple(pending), network.outputs[0])]
    return [*found[:-1], Block((*found[-1].calls, *pending), network.outputs[0])]


def _any(calls: Sequence[Call], learned: Collection[str]) -> bool:
    return any(call.name in learned for call in calls)
