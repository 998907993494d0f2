"""The pruned network's graph, out of the graph of the network and a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from edgekit.errors import PruneError
from edgekit.prune.blocks import within
from edgekit.prune.on_graph.bypass import bypass
from edgekit.prune.on_graph.masks import Masks, everything, sizes
from edgekit.prune.on_graph.operators import GATES, follow
from edgekit.prune.on_graph.shapes import declared, named, reshape, sized
from edgekit.prune.on_graph.walk import Walk, refusal
from edgekit.prune.plan import PrunePlan

_STATE_WEIGHT = re.compile(r"(?:(.+)\.)?weight_hh_l0")


class GraphPruner:
    """Applies plans to the exported graph of a network.

    What every plan needs of the graph is found once: its shapes.

    Args:
        model: the graph that `edgekit.export` wrote for the network that plans are made for, in fp32; left as it is.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self._sized, self._named = sized(model), named(model)
        self._shapes = {**declared(model, self._sized), **self._sized}

    def pruned(self, plan: PrunePlan) -> ir.Model:
        """A copy of the graph without what a plan removes.

        Weights are sliced where the plan says, and what stays is followed through the graph: numbers in it that count
        channels, heads or hidden units become those that are left. The addition of a removed block becomes its
        shortcut. Shapes are inferred anew and have to be those that were followed.

        Args:
            plan: what to remove.

        Raises:
            PruneError: an operator of the graph cannot be followed, it holds a tensor of the plan in another form, or
                the plan scales images; export the pruned network instead.
        """
        if plan.resolution is not None:
            raise refusal(str(plan.resolution), rule="images as they come")
        twin = self.model.clone()
        walk = Walk(twin.graph, self._shapes)
        _apply(walk, twin, plan)
        now = sized(twin)
        _check(walk, self._sized, now, self.model)
        reshape(twin, self._named, now)
        return twin


def _apply(walk: Walk, twin: ir.Model, plan: PrunePlan) -> None:
    """Slice weights, follow what stays, take out blocks."""
    # What is not there has been folded into the layer before it, which the plan slices, too; if not, shapes will tell.
    found = [name for name in plan.slices if name in twin.graph.initializers]
    units = _units(twin.graph, plan.slices)
    if plan.slices and not found and not units:
        raise PruneError(
            f"the graph has none of the plan's tensors, such as {next(iter(plan.slices))!r}",
            where="GraphPruner",
            rule="a graph that `edgekit.export` wrote for the network that the plan was made for",
            way_out="export that network",
        )
    for name in found:
        _slice(walk, twin.graph.initializers[name], _masks(twin.graph.initializers[name], plan.slices[name]))
    for weight, masks in units.items():
        _slice(walk, weight, masks)
    follow(walk)
    for block in plan.blocks:
        bypass(twin.graph, block)
    passes.RemoveUnusedNodesPass()(twin)


def _masks(value: ir.Value, axes: Mapping[int, Sequence[int]]) -> Masks:
    """What stays of an initializer that has its name from the module."""
    assert value.const_value is not None
    shape = value.const_value.shape.numpy()
    masks = everything(shape)
    # A product with the matrix itself: the exporter has transposed what a Linear layer holds.
    is_transposed = len(shape) == 2 and all(use.node.op_type == "MatMul" and use.idx == 1 for use in value.uses())
    for own, indexes in axes.items():
        axis = 1 - own if is_transposed else own
        if axis >= len(shape) or max(indexes) >= shape[axis]:
            raise refusal(
                f"{value.name} has shape {list(shape)}",
                rule=f"dimension {axis} with index {max(indexes)}, as the plan has it",
            )
        masks[axis][list(indexes)] = False
    return masks


def _units(graph: ir.Graph, slices: Mapping[str, Mapping[int, Sequence[int]]]) -> dict[ir.Value, Masks]:
    """What stays of the weights that read recurrent states, [directions, gates * units, units], which tell the rest.

    A module has the same units in all of its layers and directions. ONNX has other gates first, but unit i is row i of
    each in both.

    Raises:
        PruneError: the layers have a projection, which ONNX has not.
    """
    found: dict[ir.Value, Masks] = {}
    for name, axes in slices.items():
        is_state_weight = _STATE_WEIGHT.fullmatch(name)
        if is_state_weight is None or 1 not in axes:
            continue
        module = is_state_weight[1] or ""
        for node in graph:
            weight = node.inputs[2] if node.op_type in GATES and within(str(node.name), module) else None
            if weight is None or weight.const_value is None:
                continue
            directions, rows, width = weight.const_value.shape.numpy()
            kept = np.ones(width, bool)
            kept[list(axes[1])] = False
            found[weight] = (np.ones(directions, bool), np.tile(kept, rows // width), kept)
    return found


def _slice(walk: Walk, value: ir.Value, masks: Masks) -> None:
    assert value.const_value is not None
    smaller = value.const_value.numpy()[np.ix_(*masks)]
    value.const_value = ir.tensor(smaller, name=value.name)
    value.shape = ir.Shape(smaller.shape)
    walk.keep(value, masks)


def _check(
    walk: Walk, known: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], before: ir.Model
) -> None:
    """Compare the shapes that ONNX infers, `known` before and `found` now, with those that were followed.

    Raises:
        PruneError: they differ, or an output's are not those of the unpruned network.
    """
    wrong = [
        f"{name} has {found[name]} instead of {wanted}"
        for name, shape in walk.shapes.items()
        if name in found and found[name] != (wanted := sizes(walk.masks[name]) if name in walk.masks else shape)
    ]
    for value in before.graph.outputs:
        name = str(value.name)
        if name in walk.masks or found.get(name) != known.get(name):
            wrong.append(f"the output {name} has another shape")
    if wrong:
        raise refusal(f"shapes do not agree: {wrong[0]}", rule="the sizes that were followed through the graph")
