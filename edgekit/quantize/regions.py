"""The int8 regions of a graph that cost least: a minimum cut.

Every unit is on one of two sides, int8 or fp32, and pays what it costs there; a value that crosses from one side to the
other pays for its Q or DQ, once for all that read it. Such a sum is the capacity of a cut of a network, so that the
best choice is a minimum cut (D. Greig, B. Porteous and A. Seheult, *Exact Maximum A Posteriori Estimation for Binary
Images*, 1989). Contiguous regions and dropped islands come out by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import onnx_ir as ir

from edgekit.quantize.costs import Costs
from edgekit.quantize.placement import FLOAT_OUTPUT, Placement, activations_of, outputs_of

INT8, FP32 = "int8", "fp32"


class Borders(Protocol):
    """What crossing from one precision to the other costs, in microseconds."""

    def quantize(self, value: ir.Value) -> float:
        """Into int8."""

    def dequantize(self, value: ir.Value) -> float:
        """Out of int8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A node that can run in int8, with the activation that it takes along.

    Args:
        nodes: their names.
        inputs: values that it reads, without constants.
        outputs: values that leave it.
        fp32_us: predicted cost in fp32.
        int8_us: predicted cost in int8.
        gives_float: whether its int8 kernel can give fp32 at no further cost.
    """

    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fp32_us: float
    int8_us: float
    gives_float: bool


def units_of(graph: ir.Graph, placement: Placement, costs: Costs) -> list[Unit]:
    """The nodes that a placement would run in int8, each with what it costs in both forms."""
    fused = {str(follower.name) for follower in placement.fused.values()}
    found = []
    for node in graph:
        name = str(node.name)
        if name not in placement.nodes or name in fused:
            continue
        activation = placement.fused.get(name)
        members = [node] if activation is None else [node, activation]
        fp32_us, int8_us = costs.in_both_forms(node)
        found.append(
            Unit(
                nodes=tuple(str(member.name) for member in members),
                inputs=tuple(str(value.name) for value in activations_of(node)),
                outputs=tuple(str(value.name) for value in outputs_of(node, placement)),
                fp32_us=fp32_us,
                int8_us=int8_us,
                gives_float=node.op_type in FLOAT_OUTPUT,
            )
        )
    return found


def cheapest_regions(graph: ir.Graph, units: Sequence[Unit], borders: Borders) -> frozenset[str]:
    """The names of the nodes that run in int8; all others, and what is in no unit, run in fp32."""
    import networkx as nx

    network: Any = nx.DiGraph()
    network.add_nodes_from((INT8, FP32))
    makers = {made: index for index, unit in enumerate(units) for made in unit.outputs}
    readers: dict[str, set[int]] = {}
    for index, unit in enumerate(units):
        network.add_edge(INT8, index, capacity=unit.fp32_us)
        network.add_edge(index, FP32, capacity=unit.int8_us)
        for read in unit.inputs:
            readers.setdefault(read, set()).add(index)
    inside = {name for unit in units for name in unit.nodes}
    for value in [*graph.inputs, *(output for node in graph for output in node.outputs)]:
        name = str(value.name)
        maker = makers.get(name)
        if maker is None and name not in readers:
            continue
        if maker is None and (producer := value.producer()) is not None and producer.name in inside:
            continue  # It stays within a unit.
        source: Any = FP32 if maker is None else maker
        goals: list[Any] = sorted(readers.get(name, ()))
        for goal in goals:
            # Q, if it comes in fp32 and anything reads it in int8.
            network.add_edge(goal, ("quantize", name))
        network.add_edge(("quantize", name), source, capacity=borders.quantize(value))
        if maker is None or units[maker].gives_float:
            continue
        if value.is_graph_output() or any(use.node.name not in inside for use in value.uses()):
            goals = [*goals, FP32]
        for goal in goals:
            # DQ, if it comes in int8 and anything reads it in fp32.
            network.add_edge(("dequantize", name), goal)
        network.add_edge(source, ("dequantize", name), capacity=borders.dequantize(value))
    _, (chosen, _) = nx.minimum_cut(network, INT8, FP32)
    return frozenset(name for index, unit in enumerate(units) if index in chosen for name in unit.nodes)
