"""A plan applied to the exported graph: the pruned network's graph in milliseconds, without PyTorch or an export.

The exporter keeps the names of the modules' tensors, so a plan finds its weights there. What comes of it is good for
asking what a plan would cost; a network that is kept is pruned as modules, with proof, and exported.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from edgekit.errors import PruneError
from edgekit.prune.blocks import ResidualBlock, within
from edgekit.prune.plan import PrunePlan

ZERO_TO_ZERO = ("Mul", "Identity", "Dropout", "Transpose", "Reshape", "Cast")
"""Operators that answer zero to a zero among their operands."""
RECURRENT = ("LSTM", "GRU", "RNN")


def prune_graph(model: ir.Model, plan: PrunePlan) -> ir.Model:
    """A copy of the exported graph of a network without what the plan, made for that network, removes.

    Weights are sliced where the plan says; the addition of a removed block becomes its shortcut; shapes are inferred
    anew.

    Args:
        model: the graph that `edgekit.export` wrote for the network that the plan was made for, in fp32; left as it is.
        plan: what to remove.

    Raises:
        PruneError: the graph holds a tensor of the plan in another form (recurrent weights are packed by gate), its
            shapes no longer agree, or the plan scales images; export the pruned network instead.
    """
    if plan.resolution is not None:
        raise PruneError(
            str(plan.resolution), where="prune_graph", rule="images as they come", way_out="export the pruned network"
        )
    twin = model.clone()
    graph = twin.graph
    _check_recurrent(graph, plan.slices)
    flattened = _open_flattenings(graph)
    # What is not there has been folded into the layer before it, which the plan slices, too; if not, shapes will tell.
    found = [name for name in plan.slices if name in graph.initializers]
    if plan.slices and not found:
        raise PruneError(
            f"the graph has none of the plan's tensors, such as {next(iter(plan.slices))!r}",
            where="prune_graph",
            rule="a graph that `edgekit.export` wrote for the network that the plan was made for",
            way_out="export that network",
        )
    for name in found:
        for axis, indexes in plan.slices[name].items():
            _slice(graph.initializers[name], axis, indexes)
    for block in plan.blocks:
        if not isinstance(block, ResidualBlock):
            raise _packed(block.name)
        _bypass(graph, block.ending)
    passes.RemoveUnusedNodesPass()(twin)
    _forget_shapes(twin)
    if _output_shapes(twin) != _output_shapes(model):
        raise _disagree("outputs have other shapes")
    found_shapes = _inferred(twin)
    _close_flattenings(found_shapes.graph, flattened)
    return found_shapes


def _check_recurrent(graph: ir.Graph, names: Collection[str]) -> None:
    owners = {name.rpartition(".")[0] for name in names}
    for node in graph:
        if node.op_type in RECURRENT and any(within(str(node.name), owner) for owner in owners if owner):
            raise _packed(str(node.name))


@dataclass(frozen=True, slots=True)
class _Flattening:
    """A Reshape as the exporter wrote it."""

    target: ir.Value
    allowzero: ir.Attr | None


def _open_flattenings(graph: ir.Graph) -> dict[str, _Flattening]:
    """Let a Reshape that merges its last dimensions find the merged size itself; the exporter writes it as a number.

    Returns what those were, by the name of their output.
    """
    found = {}
    for node in graph:
        if node.op_type != "Reshape" or node.inputs[0] is None or node.inputs[0].shape is None:
            continue
        before, after, target = node.inputs[0].shape, node.outputs[0].shape, node.inputs[1]
        if after is None or not 1 <= len(after) <= len(before) or target is None or target.const_value is None:
            continue
        kept = len(after) - 1
        if list(before[:kept]) == list(after[:kept]) and isinstance(after[kept], int):
            found[str(node.outputs[0].name)] = _Flattening(target, node.attributes.get("allowzero"))
            size = np.array([0] * kept + [-1], np.int64)  # 0 copies a dimension, -1 takes the rest.
            node.replace_input_with(1, _constant(graph, f"{node.outputs[0].name}.flattened", size))
            node.attributes["allowzero"] = ir.AttrInt64("allowzero", 0)
    return found


def _close_flattenings(graph: ir.Graph, flattened: Mapping[str, _Flattening]) -> None:
    """Write the sizes that were found as the exporter would: what costs are known by is what a graph says."""
    for node in graph:
        was = flattened.get(str(node.outputs[0].name))
        if was is None or was.target.const_value is None:
            continue
        size, merged = was.target.const_value.numpy().copy(), node.outputs[0].shape
        if size[-1] > 0 and merged is not None and isinstance(merged[-1], int):
            size[-1] = merged[-1]
        old = node.inputs[1]
        node.replace_input_with(1, _constant(graph, f"{node.outputs[0].name}.size", size))
        if old is not None and not list(old.uses()):
            graph.initializers.pop(str(old.name), None)
        del node.attributes["allowzero"]
        if was.allowzero is not None:
            node.attributes["allowzero"] = was.allowzero


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _packed(name: str) -> PruneError:
    return PruneError(
        f"{name} packs its weights by gate",
        where="prune_graph",
        rule="weights in the form that they have in the module",
        way_out="export the pruned network",
    )


def _disagree(how: str) -> PruneError:
    return PruneError(
        f"shapes do not agree: {how}",
        where="prune_graph",
        rule="the graph takes its sizes from its tensors; numbers of heads are written into it",
        way_out="export the pruned network",
    )


def _slice(value: ir.Value, axis: int, indexes: Sequence[int]) -> None:
    assert value.const_value is not None
    array = value.const_value.numpy()
    if array.ndim == 2 and all(use.node.op_type == "MatMul" and use.idx == 1 for use in value.uses()):
        axis = 1 - axis  # A product with the matrix itself: the exporter has transposed what a Linear layer holds.
    if axis >= array.ndim or max(indexes) >= array.shape[axis]:
        raise PruneError(
            f"{value.name} has shape {list(array.shape)}",
            where="prune_graph",
            rule=f"dimension {axis} with index {max(indexes)}, as the plan has it",
            way_out="export the pruned network",
        )
    smaller = np.delete(array, list(indexes), axis=axis)
    value.const_value = ir.tensor(smaller, name=value.name)
    value.shape = ir.Shape(smaller.shape)
    for use in value.uses():
        _regroup(use.node, value, array.shape, smaller.shape)


def _regroup(node: ir.Node, weight: ir.Value, before: Sequence[int], after: Sequence[int]) -> None:
    """Groups of a convolution go whole: fewer filters are fewer groups."""
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if node.op_type in ("Conv", "ConvTranspose") and node.inputs[1] is weight and groups > 1:
        node.attributes["group"] = ir.AttrInt64("group", groups * after[0] // before[0])


def _bypass(graph: ir.Graph, ending: str) -> None:
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
    raise PruneError(
        f"no addition behind {ending!r} in the graph",
        where="prune_graph",
        rule="a branch that is added to a shortcut",
        way_out="export the pruned network",
    )


def _merge_relus(value: ir.Value) -> None:
    """The ReLU behind a bypassed addition does nothing more to what a ReLU has made."""
    source = value.producer()
    if source is None or source.op_type != "Relu":
        return
    for use in list(value.uses()):
        if use.node.op_type == "Relu" and not use.node.outputs[0].is_graph_output():
            use.node.outputs[0].replace_all_uses_with(value)


def _forget_shapes(model: ir.Model) -> None:
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def _output_shapes(model: ir.Model) -> list[str]:
    """Shapes of the outputs with a size for each open dimension: a graph whose sizes disagree gives others, or none."""
    twin = model.clone()
    _forget_shapes(twin)
    sizes: dict[str, int] = {}
    for value in twin.graph.inputs:
        assert value.shape is not None
        known = [size if isinstance(size, int) else sizes.setdefault(str(size), 2 + len(sizes)) for size in value.shape]
        value.shape = ir.Shape(known)
    for value in twin.graph.outputs:
        value.shape = None
    return [str(value.shape) for value in _inferred(twin).graph.outputs]


def _inferred(model: ir.Model) -> ir.Model:
    """The model with its shapes; without any where they disagree, which onnx-ir would log with a traceback."""
    log = logging.getLogger(passes.ShapeInferencePass.__module__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return passes.ShapeInferencePass(strict_mode=True, data_prop=True)(model).model
    finally:
        log.setLevel(level)
