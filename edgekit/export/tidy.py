"""Exact rewrites of the exported ONNX graph into the forms for which ONNX Runtime has fast kernels.

Each pass takes a model, changes it in place and says whether it did. What the quantizer rewrites itself (Slice, Pad)
stays.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules.common import (
    collapse_slice2_rule,
    collapse_slice_rule,
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
    successive_relu_rule,
)

FOLDED_ELEMENTS = 1 << 26
"""Constants up to this size are computed ahead of time."""
RECURRENT = ("LSTM", "GRU", "RNN")
_INITIAL_STATES = (5, 6)
_RULES = rewriter.RewriteRuleSet(
    [
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
        successive_relu_rule,
        collapse_slice_rule,
        collapse_slice2_rule,
    ]
)


def tidy(model: ir.Model) -> None:
    """Run all passes on `model`, in place, keeping the exporter's metadata for naming."""
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    # The default limits would leave the slicing and joining of recurrent weights to every start of a session.
    optimizer.optimize_ir(model, input_size_limit=FOLDED_ELEMENTS, output_size_limit=FOLDED_ELEMENTS)
    _RULES.apply_to_model(model)
    drop_zero_states(model)
    plain_recurrent_outputs(model)
    plain_key_transposes(model)
    pool_spatial_means(model)
    for last in (
        passes.IdentityEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(size_limit=256),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call] # untyped in onnx-ir
        passes.RemoveUnusedOpsetsPass(),
        passes.TopologicalSortPass(),
    ):
        last(model)


def drop_zero_states(model: ir.Model) -> bool:
    """Leave out initial states of recurrent operators that are zeros: the operator's own default.

    The exporters build them from the batch size at run time, with half a dozen nodes each.
    """
    changed = False
    for node in model.graph:
        if node.op_type not in RECURRENT:
            continue
        for index in _INITIAL_STATES:
            if index < len(node.inputs) and node.inputs[index] is not None and _is_zeros(node.inputs[index]):
                node.replace_input_with(index, None)
                changed = True
    return changed


def plain_recurrent_outputs(model: ir.Model) -> bool:
    """Write the joining of a recurrent operator's directions with constant shapes.

    ONNX gives Y as [time, directions, batch, hidden], torch [time, batch, directions * hidden]. The exporter computes
    that shape at run time, node by node; `Squeeze` for one direction and `Reshape` to [0, 0, -1] for two say the same.
    """
    changed = False
    for node in list(model.graph):
        if node.op_type not in RECURRENT:
            continue
        for transpose in [user for user, _ in node.outputs[0].uses() if user.op_type == "Transpose"]:
            if list(transpose.attributes["perm"].as_ints()) != [0, 2, 1, 3]:
                continue
            joined = [user for user, _ in transpose.outputs[0].uses() if user.op_type == "Reshape"]
            for reshape in joined:
                if _is_join(reshape):
                    _join(model, node, transpose, reshape)
                    changed = True
    return changed


def _is_join(reshape: ir.Node) -> bool:
    """Whether the target is computed as [shape[0], shape[1], shape[2] * shape[3]], as torch's exporter writes it."""
    shape = reshape.inputs[1]
    concat = shape.producer() if shape is not None else None
    if concat is None or concat.op_type != "Concat" or len(concat.inputs) != 3:
        return False
    last = concat.inputs[2].producer() if concat.inputs[2] is not None else None
    while last is not None and last.op_type in ("Reshape", "Unsqueeze", "Squeeze") and last.inputs[0] is not None:
        last = last.inputs[0].producer()
    return last is not None and last.op_type == "Mul"


def _join(model: ir.Model, recurrent: ir.Node, transpose: ir.Node, reshape: ir.Node) -> None:
    direction = recurrent.attributes.get("direction")
    both = direction is not None and direction.as_string() == "bidirectional"
    if both:
        constant = _constant(model, f"{reshape.name}.shape", [0, 0, -1])
        new = ir.node("Reshape", [transpose.outputs[0], constant])
    else:
        constant = _constant(model, f"{reshape.name}.axes", [1])
        new = ir.node("Squeeze", [recurrent.outputs[0], constant])
    _replace(model, reshape, [new])


def plain_key_transposes(model: ir.Model) -> bool:
    """Write the transposition of attention's keys as one Transpose.

    Where the batch is open, the exporter flattens the leading axes to a shape computed at run time, transposes, and
    gives the axes back: Reshape, Transpose, Reshape and a handful of nodes for the shapes.
    """
    changed = False
    for node in list(model.graph):
        flat = node.inputs[0].producer() if node.op_type == "Transpose" and node.inputs[0] is not None else None
        users = [user for user, _ in node.outputs[0].uses()]
        if flat is None or len(users) != 1 or [flat.op_type, users[0].op_type] != ["Reshape", "Reshape"]:
            continue
        source, back = flat.inputs[0], users[0]
        if source is None or source.shape is None or list(node.attributes["perm"].as_ints()) != [0, 2, 1]:
            continue
        before, after = _concatenated(flat.inputs[1]), _concatenated(back.inputs[1])
        if len(before) != 3 or len(after) != 3 or _ints(before[0]) != [-1] or after[1:] != [before[2], before[1]]:
            continue
        if not all(_is_slice_of_shape(part, source) for part in (*before[1:], after[0])):
            continue
        rank = len(source.shape)
        new = ir.node("Transpose", [source], {"perm": [*range(rank - 2), rank - 1, rank - 2]})
        _replace(model, back, [new])
        new.outputs[0].shape = ir.Shape([*source.shape[:-2], source.shape[-1], source.shape[-2]])
        changed = True
    return changed


def _concatenated(value: ir.Value | None) -> list[ir.Value | None]:
    node = value.producer() if value is not None else None
    return list(node.inputs) if node is not None and node.op_type == "Concat" else []


def _is_slice_of_shape(value: ir.Value | None, source: ir.Value) -> bool:
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Slice" or node.inputs[0] is None:
        return False
    shape = node.inputs[0].producer()
    return shape is not None and shape.op_type == "Shape" and shape.inputs[0] is source


def pool_spatial_means(model: ir.Model) -> bool:
    """Write the mean over all spatial axes as GlobalAveragePool, which has an int8 kernel where ReduceMean has none."""
    changed = False
    for node in list(model.graph):
        source = node.inputs[0] if node.inputs else None
        if node.op_type != "ReduceMean" or source is None or source.shape is None or len(node.inputs) < 2:
            continue
        axes = _ints(node.inputs[1])
        rank = len(source.shape)
        if axes is None or rank < 3 or sorted(axis % rank for axis in axes) != list(range(2, rank)):
            continue
        pool = ir.node("GlobalAveragePool", [source])
        keeps = node.attributes.get("keepdims")
        if keeps is None or keeps.as_int():
            _replace(model, node, [pool])
        else:
            pool.outputs[0].shape = ir.Shape([*source.shape[:2], *[1] * (rank - 2)])
            pool.outputs[0].type = source.type
            shape = _constant(model, f"{node.name}.shape", [0, -1])
            _replace(model, node, [pool, ir.node("Reshape", [pool.outputs[0], shape])])
        changed = True
    return changed


def _replace(model: ir.Model, old: ir.Node, new: list[ir.Node]) -> None:
    """Put `new` where `old` was; the last one gives its output."""
    for node in new:
        node.metadata_props.update(old.metadata_props)
        node.name = old.name
    before, after = old.outputs[0], new[-1].outputs[0]
    after.shape, after.type, after.name = before.shape, before.type, before.name
    model.graph.insert_after(old, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    model.graph.remove(old, safe=True)


def _constant(model: ir.Model, name: str, values: list[int]) -> ir.Value:
    tensor = ir.tensor(np.array(values, dtype=np.int64), name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([len(values)]), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value


def _ints(value: ir.Value | None) -> list[int] | None:
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else [int(item) for item in tensor.numpy().ravel()]


def _is_zeros(value: ir.Value | None) -> bool:
    """Whether `value` is zeros, whatever its shape: a constant, or one expanded or sliced at run time."""
    if value is None:
        return False
    constant = ir.convenience.get_const_tensor(value)
    if constant is not None:
        return not np.any(constant.numpy())
    node = value.producer()
    if node is None:
        return False
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return fill is None or not np.any(fill.as_tensor().numpy())
    return node.op_type in ("Expand", "Slice", "Reshape", "Identity", "Transpose", "Cast") and _is_zeros(node.inputs[0])
