"""The pieces of a network: what is timed on a device so that the whole can be told from them.

A kernel timed alone is not what it is inside a network: ONNX Runtime keeps images in blocks of channels (fp32) or with
channels last (int8) between kernels, and changes the layout at the ends of a graph; it fuses neighbours; and a call has
a cost of its own. So a piece is timed *together with the pieces that read what it makes*, and what those cost alone is
taken off:

    cost of a piece in its place = T(piece and those behind it) - sum of T(each behind it, alone)

Whatever the ends of a graph cost is in both terms and cancels: summed over a chain of pieces, T(ab) - T(b) + T(bc) -
T(c) + T(c) is T(abc), if the border between a and b costs the same whether or not c follows. (Statistical physics knows
the sum as the Bethe or Kikuchi approximation: J. Yedidia, W. Freeman, Y. Weiss, *Constructing free-energy
approximations and generalized belief propagation algorithms*, 2005.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from edgekit.profiling.cutting import Cut, cut
from edgekit.profiling.grouping import groups
from edgekit.profiling.network import DEQUANTIZE, QUANTIZE, Network, prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Nodes that ONNX Runtime runs as one kernel or a few, in their place in a network.

    Args:
        key: of `graph`.
        text: what it is, for people.
        precision: `int8` where it reads or makes 8-bit integers, else `fp32`.
        graph: an ONNX file of the piece and those that read what it makes.
        behind: those alone.
        count: how often it occurs.
        nodes: names of the nodes it stands for, of all its occurrences.
    """

    key: str
    text: str
    precision: str
    graph: bytes
    behind: tuple[Cut, ...]
    count: int
    nodes: tuple[str, ...]


def pieces(model: Path | onnx.ModelProto, shapes: Mapping[str, Sequence[int]] | None = None) -> tuple[Piece, ...]:
    """Cut a network into pieces; each node lies in exactly one. Nothing is run.

    Args:
        model: ONNX file or graph, fp32 or with int8 kernels (Q/DQ or dynamic).
        shapes: sizes of inputs by name. Where one is not given, an open first dimension is 1.

    Raises:
        EdgekitError: see `edgekit.profiling.network.prepared`.
    """
    network = prepared(model, shapes)
    parts = groups(network)
    part_of = {index: number for number, part in enumerate(parts) for index in part}
    alone: dict[int, Cut] = {}
    found: dict[str, Piece] = {}
    for number, part in enumerate(parts):
        behind = sorted(
            {
                part_of[reader]
                for index in part
                for name in network.nodes[index].output
                for reader in network.readers.get(name, ())
            }
            - {number}
        )
        joined = cut(network, part, [parts[each] for each in behind])
        for each in behind:
            if each not in alone:
                alone[each] = cut(network, parts[each])
        piece = Piece(
            key=joined.key,
            text=_text(network, part),
            precision=_precision(network, part),
            graph=joined.graph,
            behind=tuple(alone[each] for each in behind),
            count=1,
            nodes=tuple(_name(network.nodes[index]) for index in part),
        )
        known = found.get(piece.key)
        if known is not None:
            piece = replace(known, count=known.count + 1, nodes=known.nodes + piece.nodes)
        found[piece.key] = piece
    return tuple(found.values())


def graphs(found: Sequence[Piece]) -> dict[str, tuple[str, bytes]]:
    """What is to be timed for some pieces: by key a text for people and an ONNX file, each once."""
    timed: dict[str, tuple[str, bytes]] = {}
    for piece in found:
        timed.setdefault(piece.key, (piece.text, piece.graph))
        for each in piece.behind:
            timed.setdefault(each.key, (f"behind {piece.text}", each.graph))
    return timed


def _name(node: onnx.NodeProto) -> str:
    return node.name or node.output[0]


def _text(network: Network, part: Sequence[int]) -> str:
    shown = [network.nodes[index] for index in part if network.nodes[index].op_type not in (QUANTIZE, DEQUANTIZE)]
    nodes = shown or [network.nodes[index] for index in part]
    ops = " + ".join(_op(network, node) for node in nodes)
    (_, shape) = network.kinds[next(filter(None, nodes[-1].output))]
    return f"{ops} -> {'x'.join(map(str, shape)) or '1'}"


def _op(network: Network, node: onnx.NodeProto) -> str:
    if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in network.kinds:
        shape = network.kinds[node.input[1]][1]
        return f"{node.op_type} {'x'.join(map(str, shape))}"
    return node.op_type


def _precision(network: Network, part: Sequence[int]) -> str:
    integers = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    reads = (network.kinds[name][0] for index in part for name in network.nodes[index].input if name)
    makes = (network.kinds[name][0] for index in part for name in network.nodes[index].output if name)
    return "int8" if any(kind in integers for kind in (*reads, *makes)) else "fp32"
