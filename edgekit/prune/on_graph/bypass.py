"""Blocks that a plan removes, taken out of the exported graph."""

from __future__ import annotations

import onnx_ir as ir

from edgekit.prune.blocks import ResidualBlock, within
from edgekit.prune.coupling import Block
from edgekit.prune.on_graph.operators import GATES
from edgekit.prune.on_graph.walk import refusal
from edgekit.prune.recurrent_layers import RecurrentLayer

ZERO_TO_ZERO = ("Mul", "Identity", "Dropout", "Transpose", "Reshape", "Cast")
"""Operators that answer zero to a zero among their operands."""


def bypass(graph: ir.Graph, block: Block) -> None:
    """Let the shortcut of a residual block, or the input of a recurrent layer, take the place of what it gives.

    Raises:
        PruneError: the graph has no such block in a form that is known.
    """
    if isinstance(block, ResidualBlock):
        _bypass_branch(graph, block.ending)
    else:
        _bypass_layer(graph, block)


def _bypass_branch(graph: ir.Graph, ending: str) -> None:
    """Let the addition that a branch ends in be its other operand; `ending` is the branch's last module."""
    ends = [node for node in graph if within(str(node.name), ending)]
    zero = ends[-1].outputs[0] if ends else None
    while zero is not None:
        uses = list(zero.uses())
        reader = uses[0].node if len(uses) == 1 else None
        if reader is None:
            break
        if reader.op_type == "Add":
            shortcut = reader.inputs[1 - uses[0].idx]
            total = reader.outputs[0]
            if shortcut is None or total.is_graph_output():
                break
            total.replace_all_uses_with(shortcut)
            _merge_relus(shortcut)
            return
        if reader.op_type not in ZERO_TO_ZERO:
            break
        zero = reader.outputs[0]
    raise refusal(f"no addition behind {ending!r} in the graph", rule="a branch that is added to a shortcut")


def _merge_relus(value: ir.Value) -> None:
    """The ReLU behind a bypassed addition does nothing more to what a ReLU has made."""
    source = value.producer()
    if source is None or source.op_type != "Relu":
        return
    for use in list(value.uses()):
        if use.node.op_type == "Relu" and not use.node.outputs[0].is_graph_output():
            use.node.outputs[0].replace_all_uses_with(value)


def _bypass_layer(graph: ir.Graph, block: RecurrentLayer) -> None:
    """Let what a recurrent layer reads be what is read of it; layers of a module are operators in their order."""
    layers = [node for node in graph if node.op_type in GATES and within(str(node.name), block.module)]
    layer = layers[block.layer] if block.layer < len(layers) else None
    joined = None if layer is None else _joined(layer)
    if layer is None or joined is None or layer.inputs[0] is None or joined.is_graph_output():
        raise refusal(
            f"no layer {block.layer} of {block.module!r} in the graph that gives nothing but its sequence",
            rule="an operator for each layer, and a Squeeze or Reshape that joins its directions",
        )
    joined.replace_all_uses_with(layer.inputs[0])


def _joined(layer: ir.Node) -> ir.Value | None:
    """The sequence that a recurrent operator makes, [time, samples, directions * units]; None where more is read."""
    if any(list(state.uses()) or state.is_graph_output() for state in layer.outputs[1:]):
        return None
    value = layer.outputs[0]
    for kinds in (("Squeeze", "Transpose"), ("Reshape",)):
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type not in kinds:
            return None
        value = uses[0].node.outputs[0]
        if uses[0].node.op_type == "Squeeze":
            break
    return value
