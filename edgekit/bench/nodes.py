"""Where the time of networks goes, node by node, with the same nodes of several files side by side.

ONNX Runtime fuses nodes into kernels, another set for each file: int8 joins a convolution with its Relu where fp32
joins it with an addition too. A kernel's name, or the name of what it gives, leads back to one node of the file; nodes
that were fused into it hang on that one in the file's graph. Kernels of different files that share a node stand in one
row.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgekit.device.kernels import Kernel, Kernels

_SUFFIX = re.compile(r"(_nchwc|_token_\d+|_quant|_nhwc)+$")
"""What ONNX Runtime's rewrites append to the name of a node that they replace."""
_WRAPPERS = {"QuantizeLinear", "DequantizeLinear", "Cast"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """Some nodes, and what they take in each file.

    Attributes:
        nodes: names in the files; empty for what ONNX Runtime or the quantizer has put in (layouts, Q and DQ).
        operators: what the nodes are, in order; for inserted kernels what these are.
        us: microseconds of a run, by file; a file without these nodes is left out.
        share: of a whole run of the file, by file.
        kernels: operators of the kernels, by file.
    """

    nodes: tuple[str, ...]
    operators: tuple[str, ...]
    us: Mapping[str, float]
    share: Mapping[str, float]
    kernels: Mapping[str, tuple[str, ...]]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "nodes": list(self.nodes),
            "operators": list(self.operators),
            "us": dict(self.us),
            "share": dict(self.share),
            "kernels": {name: list(row) for name, row in self.kernels.items()},
        }


def node_rows(profiles: Mapping[str, tuple[Path, Path, Kernels]]) -> tuple[NodeRow, ...]:
    """Rows of nodes by what they take in the file where they take most, the costliest first.

    Args:
        profiles: for each name the file, the graph that ONNX Runtime really ran (its `optimized_path`), and its
            kernels' times.
    """
    operators: dict[str, str] = {}
    held: dict[str, list[tuple[Kernel, tuple[str, ...]]]] = {}
    for name, (original, optimized, kernels) in profiles.items():
        graph = ir.load(original).graph
        operators |= {node.name: node.op_type for node in graph if node.name and node.op_type not in _WRAPPERS}
        held[name] = contents(graph, ir.load(optimized).graph, kernels.rows)
    groups = _joined(nodes for rows in held.values() for _, nodes in rows if nodes)
    totals = {name: sum(kernel.us for kernel, _ in rows) or 1.0 for name, rows in held.items()}
    taken: defaultdict[tuple[str, ...], defaultdict[str, list[Kernel]]] = defaultdict(lambda: defaultdict(list))
    for name, rows in held.items():
        for kernel, nodes in rows:
            # What was put in has no node: all of one kind are a row.
            key = groups[nodes[0]] if nodes else ("", kernel.operator)
            taken[key][name].append(kernel)
    found = []
    for key, by_file in taken.items():
        us = {name: round(sum(kernel.us for kernel in rows), 3) for name, rows in by_file.items()}
        inserted = key[0] == ""
        found.append(
            NodeRow(
                nodes=() if inserted else key,
                operators=(key[1],) if inserted else tuple(operators[node] for node in key),
                us=us,
                share={name: value / totals[name] for name, value in us.items()},
                kernels={name: tuple(kernel.operator for kernel in rows) for name, rows in by_file.items()},
            )
        )
    return tuple(sorted(found, key=lambda row: -max(row.us.values())))


def contents(graph: ir.Graph, optimized: ir.Graph, kernels: Sequence[Kernel]) -> list[tuple[Kernel, tuple[str, ...]]]:
    """Each kernel with the nodes of `graph` that it does, in the graph's order; none for what was put in."""
    nodes = [node for node in graph if node.name and node.op_type not in _WRAPPERS]
    names = {node.name for node in nodes}
    makers = {value.name: node for node in graph for value in node.outputs}
    made = {node.name: node for node in optimized}
    anchors: dict[str, int] = {}
    for index, kernel in enumerate(kernels):
        anchor = _anchor(kernel.name, made.get(kernel.name), names, makers)
        if anchor is not None:
            anchors.setdefault(anchor, index)
    owner = dict(anchors)
    # What follows its producer was fused into it (an activation into a convolution); what has no producer that runs,
    # into its consumer (a convolution into the kernel that took the activation's name).
    for node in nodes:
        if node.name not in owner and (before := _producer(node, owner)) is not None:
            owner[str(node.name)] = before
    for node in reversed(nodes):
        if node.name not in anchors and (after := _consumer(node, owner)) is not None and _heads(node, anchors):
            owner[str(node.name)] = after
    inside: defaultdict[int, list[str]] = defaultdict(list)
    for node in nodes:
        if node.name in owner:
            inside[owner[str(node.name)]].append(str(node.name))
    return [(kernel, tuple(inside[index])) for index, kernel in enumerate(kernels)]


def _anchor(name: str, ran: ir.Node | None, names: set[str | None], makers: Mapping[str | None, ir.Node]) -> str | None:
    """The node of the file that a kernel is named after, by its own name or its output's, or whose output it gives."""
    outputs = [value.name for value in ran.outputs] if ran is not None and ran.op_type not in _LAYOUT else []
    plain = _SUFFIX.sub("", name)
    for candidate in (name, plain):
        if candidate in names:
            return candidate
    for value in (plain, *outputs):
        maker = makers.get(value)
        while maker is not None and maker.op_type in _WRAPPERS and maker.inputs and maker.inputs[0] is not None:
            maker = maker.inputs[0].producer()
        if maker is not None and maker.name in names:
            return maker.name
    return None


_LAYOUT = {"ReorderInput", "ReorderOutput", "Transpose", *_WRAPPERS}


def _producer(node: ir.Node, owner: Mapping[str, int]) -> int | None:
    """The kernel of the input that nobody else reads, if it has one; else of any input that has one."""
    found = [(len(maker.outputs[0].uses()) > 1, owner[str(maker.name)]) for maker in _makers(node, owner)]
    return min(found)[1] if found else None


def _makers(node: ir.Node, owner: Mapping[str, int]) -> list[ir.Node]:
    """The nodes that have a kernel and whose outputs `node` reads, through Q and DQ."""
    makers = []
    for value in node.inputs:
        maker = None if value is None else value.producer()
        while maker is not None and maker.op_type in _WRAPPERS and maker.inputs[0] is not None:
            maker = maker.inputs[0].producer()
        if maker is not None and str(maker.name) in owner:
            makers.append(maker)
    return makers


def _consumer(node: ir.Node, owner: Mapping[str, int]) -> int | None:
    """The kernel of the only reader, through Q and DQ."""
    readers = [use.node for value in node.outputs for use in value.uses()]
    while len(readers) == 1 and readers[0].op_type in _WRAPPERS:
        readers = [use.node for value in readers[0].outputs for use in value.uses()]
    return owner.get(str(readers[0].name)) if len(readers) == 1 else None


def _heads(node: ir.Node, anchors: Mapping[str, int]) -> bool:
    """Whether a node begins a fused kernel: it has weights of its own, or nothing before it runs."""
    weighted = any(value is not None and value.is_initializer() for value in node.inputs[1:])
    return weighted or not _makers(node, anchors)


def _joined(sets: Iterable[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Sets that share a name, joined: for each name the whole it belongs to.

    >>> _joined([("a", "b"), ("c",), ("b", "d")])["a"]
    ('a', 'b', 'd')
    """
    whole: dict[str, list[str]] = {}
    for names in sets:
        merged = list(dict.fromkeys([member for name in names for member in whole.get(name, [name])]))
        for name in merged:
            whole[name] = merged
    return {name: tuple(members) for name, members in whole.items()}
