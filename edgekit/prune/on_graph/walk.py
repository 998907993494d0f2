"""What stays of every value in an exported graph once its weights are sliced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgekit.errors import PruneError
from edgekit.prune.on_graph.masks import Mask, Masks, everything, sizes


@dataclass(frozen=True, slots=True)
class Walk:
    """Masks by the names of values; what is not there stays whole.

    Args:
        graph: the graph, which the rules of `operators` change where it counts channels.
        shapes: of the values before anything is sliced.
        masks: of the initializers that have been sliced; the rules add those of values.
    """

    graph: ir.Graph
    shapes: Mapping[str, tuple[int, ...]]
    masks: dict[str, Masks] = field(default_factory=dict)

    def changed(self, value: ir.Value | None) -> bool:
        """Whether anything of a value goes."""
        return value is not None and value.name in self.masks

    def shape(self, value: ir.Value | None) -> tuple[int, ...]:
        """The shape of a value before anything is sliced.

        Raises:
            PruneError: it is not known.
        """
        name = "nothing" if value is None else str(value.name)
        if name not in self.shapes:
            raise refusal(f"the shape of {name} is not known")
        return self.shapes[name]

    def of(self, value: ir.Value | None) -> Masks:
        """What stays of a value."""
        return self.masks.get("" if value is None else str(value.name)) or everything(self.shape(value))

    def keep(self, value: ir.Value, masks: Masks) -> None:
        """Note what stays of a value."""
        if not all(mask.all() for mask in masks):
            self.masks[str(value.name)] = masks

    def fit(self, node: ir.Node, index: int, masks: Masks) -> None:
        """Let an operand of a node be what stays of it: a constant that has not been sliced is sliced for this reader.

        Raises:
            PruneError: it is no constant and something else stays of it.
        """
        value = node.inputs[index]
        if value is None or all(map(np.array_equal, self.of(value), masks)):
            return
        if value.const_value is None or self.changed(value):
            raise refusal(f"{node.name} reads {value.name} of {sizes(self.of(value))} where {sizes(masks)} stay")
        array = value.const_value.numpy()[np.ix_(*masks)]
        node.replace_input_with(index, constant(self.graph, f"{node.outputs[0].name}.kept_{index}", array))

    def rewrite(self, node: ir.Node, index: int, numbers: np.ndarray) -> None:
        """Give a node other numbers to read, if they are others; constants may have several readers."""
        value = node.inputs[index]
        assert value is not None
        if not np.array_equal(numbers, read(value)):
            node.replace_input_with(index, constant(self.graph, f"{node.outputs[0].name}.kept_{index}", numbers))


def read(value: ir.Value | None) -> np.ndarray:
    """The numbers of a constant.

    Raises:
        PruneError: it is none.
    """
    if value is None or value.const_value is None:
        raise refusal(f"{'nothing' if value is None else value.name} is computed at run time")
    return value.const_value.numpy()


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer."""
    tensor = ir.tensor(array)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def renumbered(mask: Mask, index: int) -> int:
    """Where an index (or the end of a range) is among those that stay."""
    return int(mask[: index if index >= 0 else index + len(mask)].sum())


def refusal(what: str, rule: str = "operators and sizes that can be followed through the graph") -> PruneError:
    """The error for a graph or a plan that cannot be drafted."""
    return PruneError(what, where="GraphPruner", rule=rule, way_out="export the pruned network")
