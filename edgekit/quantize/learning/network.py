"""An ONNX graph as a torch module: every value has the name that the graph gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit.errors import QuantizeError
from edgekit.quantize.graph import constant
from edgekit.quantize.learning.operators import OPERATORS


@dataclass(frozen=True, slots=True)
class Call:
    """A node as plain data, which copies and pickles as a module must.

    Args:
        name: of the node.
        op: the operator.
        attributes: as Python values.
        inputs: names of values; None where one is left out.
        outputs: names of values.
    """

    name: str
    op: str
    attributes: Mapping[str, Any]
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]

    @classmethod
    def of(cls, node: ir.Node) -> Call:
        """A node's."""
        return cls(
            name=str(node.name),
            op=node.op_type,
            attributes={name: attribute.value for name, attribute in node.attributes.items()},
            inputs=tuple(None if value is None else str(value.name) for value in node.inputs),
            outputs=tuple(str(value.name) for value in node.outputs),
        )


class Network(nn.Module):
    """Runs a graph call by call; subclasses change values and weights on the way.

    Args:
        graph: the fp32 graph, its nodes in order.

    Raises:
        QuantizeError: an operator has no counterpart in torch here.
    """

    def __init__(self, graph: ir.Graph) -> None:
        super().__init__()
        nodes = [node for node in graph if node.op_type != "Constant"]
        odd = sorted({node.op_type for node in nodes if node.op_type not in OPERATORS})
        if odd:
            raise QuantizeError(
                f"no gradient for {', '.join(odd)}",
                where="learning",
                rule=f"graphs of {', '.join(sorted(OPERATORS))}",
                way_out="quantize without learned rounding and training",
            )
        self.calls = tuple(map(Call.of, nodes))
        self.inputs = tuple(str(value.name) for value in graph.inputs)
        self.outputs = tuple(str(value.name) for value in graph.outputs)
        self._places: dict[str, str] = {}
        for value in (value for node in nodes for value in node.inputs):
            array = constant(value)
            if value is not None and array is not None and value.name not in self._places:
                self._places[str(value.name)] = f"constant_{len(self._places)}"
                self.register_buffer(self._places[str(value.name)], torch.from_numpy(array.copy()))

    def constant(self, name: str) -> Tensor:
        """A constant of the graph; shape and dtype are the graph's."""
        found: Tensor = getattr(self, self._places[name])
        return found

    def is_constant(self, name: str) -> bool:
        """Whether a value does not depend on the inputs."""
        return name in self._places

    def made(self, name: str, value: Tensor) -> Tensor:
        """What becomes of a value before anything reads it; here it stays."""
        del name
        return value

    def read(self, call: Call, name: str, value: Tensor) -> Tensor:
        """A value as a call reads it; here as it is."""
        del call, name
        return value

    def weight(self, call: Call, index: int) -> Tensor:
        """A constant as a call reads it; here as it is."""
        name = call.inputs[index]
        assert name is not None
        return self.constant(name)

    def run(self, calls: Sequence[Call], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All values that `calls` make from `values`, and those."""
        known = dict(values)

        def given(call: Call, index: int, name: str | None) -> Tensor | None:
            if name is None or not name:
                return None
            return self.weight(call, index) if self.is_constant(name) else self.read(call, name, known[name])

        for call in calls:
            inputs = [given(call, index, name) for index, name in enumerate(call.inputs)]
            outputs = OPERATORS[call.op](call.attributes, inputs)
            for name, tensor in zip(call.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=False):
                known[name] = self.made(name, tensor)
        return known

    def forward(self, *args: object, **kwargs: object) -> Tensor | tuple[Tensor, ...]:
        """The graph's outputs for its inputs, which come in any nesting, in the graph's order."""
        leaves = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        given = {name: self.made(name, leaf) for name, leaf in zip(self.inputs, leaves, strict=True)}
        values = self.run(self.calls, given)
        outputs = tuple(values[name] for name in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs
