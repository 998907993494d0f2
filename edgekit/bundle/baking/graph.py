"""Nodes in front of and behind a model's own, in ONNX's operators alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.errors import BundleError

PREFIX = "edgekit_baked"
OLDEST_OPSET = 18
"""The first whose Resize knows antialiasing."""


class BakedGraph:
    """A copy of a model that nodes are added to.

    Args:
        model: the model; it is left alone.
        where: its name, for errors.

    Raises:
        BundleError: its operator set is too old.
    """

    def __init__(self, model: onnx.ModelProto, where: str) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
        if opset < OLDEST_OPSET:
            raise BundleError(
                f"operator set {opset}",
                where=where,
                rule=f"at least {OLDEST_OPSET}, whose Resize knows antialiasing",
                way_out="export the model with a newer operator set",
            )
        self._front: list[onnx.NodeProto] = []
        self._back: list[onnx.NodeProto] = []
        self._nodes = self._front
        self._count = 0
        graph = model.graph
        self._taken = {value.name for side in (graph.input, graph.output, graph.initializer) for value in side}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output)}

    def behind(self) -> None:
        """From here on, nodes go behind the model's own."""
        self._nodes = self._back

    def free(self, name: str) -> str:
        """`name`, or one like it, that nothing in the graph has."""
        while name in self._taken:
            name = f"{name}_"
        self._taken.add(name)
        return name

    def add(self, operator: str, *inputs: str | np.ndarray, into: str | None = None, **attributes: Any) -> str:
        """A node; returns the name of its output.

        Args:
            operator: of ONNX.
            inputs: names; arrays become constants, and "" leaves an input out.
            into: the output's name; a free one by default.
            attributes: of the operator.
        """
        return self._add(operator, inputs, [into or self.free(f"{PREFIX}/{operator}_{self._count}")], attributes)[0]

    def add_pair(self, operator: str, *inputs: str | np.ndarray, **attributes: Any) -> tuple[str, str]:
        """A node with two outputs; returns their names."""
        first, second = (self.free(f"{PREFIX}/{operator}_{self._count}_{number}") for number in range(2))
        self._add(operator, inputs, [first, second], attributes)
        return first, second

    def _add(
        self, operator: str, inputs: Sequence[str | np.ndarray], outputs: list[str], attributes: dict[str, Any]
    ) -> list[str]:
        names = [self.constant(each) if isinstance(each, np.ndarray) else each for each in inputs]
        self._count += 1
        name = f"{PREFIX}/{operator}_{self._count}"
        self._nodes.append(helper.make_node(operator, names, outputs, name=name, **attributes))
        return outputs

    def constant(self, value: np.ndarray) -> str:
        """An initializer."""
        self._count += 1
        name = self.free(f"{PREFIX}/constant_{self._count}")
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def finish(self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        """The model with the nodes, these inputs and these outputs; checked.

        What the model's own inputs were called is now what the last node in front gives.
        """
        graph = self.model.graph
        own = list(graph.node)
        del graph.node[:], graph.input[:], graph.output[:]
        graph.node.extend([*self._front, *own, *self._back])
        graph.input.extend(inputs)
        graph.output.extend(outputs)
        onnx.checker.check_model(self.model)
        return self.model


def int64(*values: int) -> np.ndarray:
    """A constant of whole numbers: axes, places, sizes."""
    return np.array(values, np.int64)
