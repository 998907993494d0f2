"""Which nodes of a graph ONNX Runtime runs as one kernel, or as a few that only make sense together.

The groups need not be exactly ONNX Runtime's: what a group costs is measured together with the groups behind it
(`edgekit.profiling.piece`), so that a fusion across their border is measured, too. Every merge here is of a node with
the one reader of its one output, so no path leaves a group and comes back.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgekit.profiling.network import DEQUANTIZE, QUANTIZE, Network

ACTIVATIONS = frozenset(
    {"Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Sigmoid", "Swish"}
    | {"Softplus", "Tanh"}
)
ELEMENTWISE = ACTIVATIONS | frozenset(
    {"Abs", "Add", "And", "Cast", "Cos", "Div", "Equal", "Erf", "Exp", "Greater", "Identity", "Less", "Log", "Max"}
    | {"Min", "Mul", "Neg", "Not", "Pow", "Reciprocal", "Round", "Sin", "Sqrt", "Sub", "Where"}
)
MOVERS = frozenset({"Concat", "Expand", "Flatten", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
LIGHT = ELEMENTWISE | MOVERS
"""Operators that do little: a run of them is one group."""
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "ConvInteger"})
PRODUCTS = frozenset({"MatMul", "Gemm", "MatMulInteger", "MatMulNBits", "DynamicQuantizeLinear"})
"""What takes up the transpositions, reshapes and scalings in front of it."""
CUTTERS = frozenset({"Gather", "Slice"})
"""Several of these that read one value are run as one Split."""


def groups(network: Network) -> list[list[int]]:
    """A partition of the nodes' indexes; each group and the list of groups in the nodes' order."""
    found = _Groups(network)
    return sorted(found.members.values())


class _Groups:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.of = list(range(len(network.nodes)))
        self.members = {index: [index] for index in self.of}
        # The operator that does a group's work, where one does.
        self.lead = {
            index: "" if node.op_type in LIGHT or node.op_type == DEQUANTIZE else node.op_type
            for index, node in enumerate(network.nodes)
        }
        self.together = set(self._cutters())
        for index in range(len(network.nodes)):
            self._join_makers(index)
        for index in reversed(range(len(network.nodes))):
            self._join_readers(index)

    def _cutters(self) -> Iterator[int]:
        for readers in self.network.readers.values():
            alike = [index for index in readers if self._cuts(index)]
            if len(alike) > 1:
                for index in alike:
                    self._merge(alike[0], index)
                    yield index
                self.lead[alike[0]] = "Split"

    def _cuts(self, index: int) -> bool:
        node = self.network.nodes[index]
        return node.op_type in CUTTERS and len(self.network.varying(node)) == 1

    def _join_makers(self, index: int) -> None:
        node = self.network.nodes[index]
        if node.op_type == DEQUANTIZE or index in self.together:
            return
        for name in self.network.varying(node):
            maker = self._sole_maker(name)
            if maker is not None and self._belongs(index, node, maker, name):
                self._merge(self.of[maker], self.of[index])

    def _sole_maker(self, name: str) -> int | None:
        """The node that makes a value which one node alone reads."""
        network = self.network
        maker = network.maker.get(name)
        if maker is None or maker in self.together or len(network.readers[name]) > 1 or name in network.outputs:
            return None
        made = [each for each in network.nodes[maker].output if each in network.readers or each in network.outputs]
        return maker if made == [name] else None

    def _belongs(self, index: int, node: onnx.NodeProto, maker: int, name: str) -> bool:
        mine, theirs = self.lead[self.of[index]], self.lead[self.of[maker]]
        before = self.network.nodes[maker].op_type
        if before == QUANTIZE:
            return False
        if before == DEQUANTIZE or node.op_type == QUANTIZE:
            return True
        if not theirs:
            return node.op_type in LIGHT or node.op_type in PRODUCTS
        return not mine and self._fuses(node, theirs, before, name)

    def _fuses(self, node: onnx.NodeProto, lead: str, before: str, name: str) -> bool:
        """Whether a light node goes into the kernel of the one that makes what it reads."""
        if lead in CONVOLUTIONS:
            return node.op_type in (*ACTIVATIONS, "BatchNormalization") or (
                node.op_type == "Add" and before in (*CONVOLUTIONS, "BatchNormalization")
            )
        if lead not in PRODUCTS:
            return False
        if node.op_type in ("Add", "Mul"):
            return all(self.network.size(other) <= self._width(name) for other in node.input if other != name)
        return node.op_type in ACTIVATIONS or node.op_type == "Cast"

    def _width(self, name: str) -> int:
        """The numbers that a bias or a scale of channels has."""
        shape = self.network.kinds[name][1]
        return shape[-1] if shape else 1

    def _join_readers(self, index: int) -> None:
        """Put what makes the 8-bit integers and scale of one product alone into its group."""
        network, own = self.network, self.of[index]
        node = network.nodes[index]
        if node.op_type != "DynamicQuantizeLinear" or network.outputs & set(node.output):
            return
        readers = {self.of[reader] for name in node.output for reader in network.readers.get(name, ())} - {own}
        if len(readers) == 1:
            self._merge(own, readers.pop())

    def _merge(self, first: int, second: int) -> None:
        if first == second:
            return
        lead = self.lead[second] or self.lead[first]
        if self.lead[first] and self.lead[second] in ("", QUANTIZE):
            lead = self.lead[first]
        for index in self.members[second]:
            self.of[index] = first
        self.members[first] = sorted(self.members[first] + self.members.pop(second))
        self.lead[first] = lead
