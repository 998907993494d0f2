"""The pieces of a network: what is timed on a device so that the whole can be told from them.

A kernel timed alone is not what it is inside a network: ONNX Runtime keeps images in blocks of channels (fp32) or with
channels last (int8) between kernels, and changes the layout at the ends of a graph; it fuses neighbours; and a call has
a cost of its own. So a piece is timed *together with what reads it*, and what that costs without the piece is taken
off:

    cost of a piece in its place = T(piece and what is behind it) - T(what is behind it)

What the ends of a graph cost is in both terms: summed over a chain of pieces, T(ab) - T(b) + T(bc) - T(c) + T(c) is
T(abc), if the border between a and b costs the same whether or not c follows. Operators that take any layout (a sum, a
concatenation) pass on what their readers ask for, so behind those, their readers are in the graph, too. (Statistical
physics knows such sums as Kikuchi approximations: J. Yedidia, W. Freeman, Y. Weiss, *Constructing free-energy
approximations and generalized belief propagation algorithms*, 2005.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from edgekit.device.request import Timed
from edgekit.profiling.cutting import cut, nothing
from edgekit.profiling.grouping import LIGHT, groups
from edgekit.profiling.network import DEQUANTIZE, QUANTIZE, Network, prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Nodes that ONNX Runtime runs as one kernel or a few, in their place in a network.

    Args:
        key: of `together`; it depends on operators, attributes, sizes and types, not on weights.
        text: what it is, for people.
        precision: `int8` where it reads or makes 8-bit integers, else `fp32`.
        together: the graph of the piece and what is behind it.
        behind: the graph of that alone.
        count: how often it occurs.
        nodes: names of the nodes it stands for, of all its occurrences.
    """

    key: str
    text: str
    precision: str
    together: Timed
    behind: Timed
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
    cutter = _Neighbours(network, parts)
    found: dict[str, Piece] = {}
    for number, part in enumerate(parts):
        together, behind = cutter.cuts(number)
        piece = Piece(
            key=together.key,
            text=_text(network, part),
            precision=_precision(network, part),
            together=together,
            behind=behind,
            count=1,
            nodes=tuple(_name(network.nodes[index]) for index in part),
        )
        known = found.get(piece.key)
        if known is not None:
            piece = replace(known, count=known.count + 1, nodes=known.nodes + piece.nodes)
        found[piece.key] = piece
    return tuple(found.values())


def graphs(found: Sequence[Piece]) -> tuple[Timed, ...]:
    """What is to be timed for some pieces: each graph once, those that are subtracted from each other side by side."""
    empty = nothing()
    every = {empty.key: empty, **{each.key: each for piece in found for each in (piece.together, piece.behind)}}
    return tuple(every.values())


class _Neighbours:
    """Which groups read which."""

    def __init__(self, network: Network, parts: Sequence[Sequence[int]]) -> None:
        self.network, self.parts = network, parts
        part_of = {index: number for number, part in enumerate(parts) for index in part}
        self.readers = [
            sorted(
                {
                    part_of[reader]
                    for index in part
                    for name in network.nodes[index].output
                    for reader in network.readers.get(name, ())
                }
                - {number}
            )
            for number, part in enumerate(parts)
        ]
        self.made: dict[frozenset[tuple[int, int]], Timed] = {}

    def cuts(self, number: int) -> tuple[Timed, Timed]:
        """A group with what is behind it, and that alone."""
        behind = {(reader, further) for reader in self.readers[number] for further in self._through(reader)}
        around = {*self.readers[number], *(further for _, further in behind)}
        together = behind | {(number, reader) for reader in self.readers[number]}
        return self._cut({number, *around}, together), self._cut(around, behind) if around else nothing()

    def _through(self, number: int) -> list[int]:
        """The readers of a group that takes images in any layout."""
        network = self.network
        last = network.nodes[self.parts[number][-1]]
        takes_any = all(
            network.nodes[index].op_type in (*LIGHT, QUANTIZE, DEQUANTIZE) for index in self.parts[number]
        ) and any(len(network.kinds[name][1]) == 4 for name in last.output if name)
        return self.readers[number] if takes_any else []

    def _cut(self, numbers: Collection[int], edges: Collection[tuple[int, int]]) -> Timed:
        key = frozenset({*edges, *((number, number) for number in numbers)})
        if key not in self.made:
            order = sorted(numbers, key=lambda number: self.parts[number][-1])
            at = {number: position for position, number in enumerate(order)}
            pairs = {(at[maker], at[reader]) for maker, reader in edges}
            self.made[key] = cut(self.network, [self.parts[number] for number in order], pairs)
        return self.made[key]


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
