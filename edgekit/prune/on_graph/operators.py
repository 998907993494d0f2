"""How each ONNX operator passes on what stays: one rule for each kind.

A rule reads the masks of a node's operands, notes those of its outputs, and rewrites what the node says about sizes:
targets of reshapes, ranges of slices, numbers of groups and hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from edgekit.prune.on_graph.masks import Mask, Masks, everything, reshaped
from edgekit.prune.on_graph.walk import Walk, constant, read, refusal, renumbered

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Rows of a recurrent weight for each unit."""


def follow(walk: Walk) -> None:
    """Apply the rules along the graph.

    Raises:
        PruneError: an operator has no rule and reads what has shrunk, or its operands disagree.
    """
    for node in walk.graph:
        if not any(map(walk.changed, node.inputs)):
            continue
        rule = RULES.get(node.op_type)
        if rule is None:
            raise refusal(f"{node.name}: no rule for {node.op_type}")
        rule(walk, node)


def _elementwise(walk: Walk, node: ir.Node) -> None:
    """Operands are broadcast: of each dimension stays what stays in all that have it."""
    shape = walk.shape(node.outputs[0])
    masks = everything(shape)
    present = [(index, value) for index, value in enumerate(node.inputs) if value is not None]
    for _, value in present:
        if not walk.changed(value):
            continue
        for axis, mask in _aligned(walk.of(value), shape):
            masks[axis][:] &= mask
    for index, value in present:
        own = walk.shape(value)
        wanted = list(everything(own))
        for axis, _ in _aligned(tuple(wanted), shape):
            wanted[axis - len(shape) + len(own)] = masks[axis]
        walk.fit(node, index, tuple(wanted))
    walk.keep(node.outputs[0], masks)


def _aligned(masks: Masks, shape: tuple[int, ...]) -> list[tuple[int, Mask]]:
    """The dimensions of an operand that are not repeated, by their place in the output."""
    first = len(shape) - len(masks)
    return [(first + own, mask) for own, mask in enumerate(masks) if len(mask) == shape[first + own]]


def _same(walk: Walk, node: ir.Node) -> None:
    """What stays of the first operand stays; the constants of a normalization have its channels."""
    masks = walk.of(node.inputs[0])
    is_last = node.op_type in ("LayerNormalization", "RMSNormalization") or len(masks) == 1
    channels = masks[-1 if is_last else 1]
    for index, value in enumerate(node.inputs):
        if index and value is not None and walk.shape(value) == (len(channels),):
            walk.fit(node, index, (channels,))
    walk.keep(node.outputs[0], masks)


def _spatial(walk: Walk, node: ir.Node) -> None:
    """Samples and channels stay as they are, whatever happens to the dimensions behind them."""
    before, shape = walk.of(node.inputs[0]), walk.shape(node.outputs[0])
    pools_all = node.op_type.startswith("Global")
    if tuple(map(len, before[:2])) != shape[:2] or not (pools_all or all(mask.all() for mask in before[2:])):
        raise refusal(f"{node.name} changes what has shrunk")
    masks = (*before[:2], *everything(shape[2:]))
    if node.op_type == "Resize" and len(node.inputs) > 3 and node.inputs[3] is not None and not masks[1].all():
        target = read(node.inputs[3]).copy()
        if len(target) == len(shape):
            target[1] = masks[1].sum()
        walk.rewrite(node, 3, target)
    walk.keep(node.outputs[0], masks)


def _pad(walk: Walk, node: ir.Node) -> None:
    """What is added stays."""
    before, pads = walk.of(node.inputs[0]), read(node.inputs[1])
    given = read(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else range(len(before))
    masks = list(before)
    for index, axis in enumerate(given):
        first, last = int(pads[index]), int(pads[index + len(given)])
        if min(first, last) < 0:
            raise refusal(f"{node.name} cuts")
        masks[axis] = np.pad(masks[axis], (first, last), constant_values=True)
    walk.keep(node.outputs[0], tuple(masks))


def _reduce(walk: Walk, node: ir.Node) -> None:
    before = walk.of(node.inputs[0])
    if "axes" in node.attributes:
        axes = list(node.attributes["axes"].as_ints())
    else:
        given = node.inputs[1] if len(node.inputs) > 1 else None
        axes = list(range(len(before))) if given is None else [int(axis) for axis in read(given).ravel()]
    gone = {axis % len(before) for axis in axes}
    keeps = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    reduced = [np.ones(1, bool) if axis in gone else mask for axis, mask in enumerate(before)]
    walk.keep(node.outputs[0], tuple(mask for axis, mask in enumerate(reduced) if keeps or axis not in gone))


def _convolution(walk: Walk, node: ir.Node) -> None:
    """Weights [out, in / groups, ...]; of a transposed one [in, out / groups, ...]."""
    x, weight = walk.of(node.inputs[0]), walk.of(node.inputs[1])
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    is_transposed = node.op_type == "ConvTranspose"
    if groups > 1:
        # Groups go whole: their number shrinks with the filters.
        left = weight[0].reshape(groups, -1).any(axis=1)
        for mask in (weight[0], x[1]):
            if not np.array_equal(np.repeat(left, len(mask) // groups), mask):
                raise refusal(f"{node.name} would have parts of its {groups} groups")
        node.attributes["group"] = ir.AttrInt64("group", int(left.sum()))
        out = np.repeat(left, len(weight[1])) if is_transposed else weight[0]
    else:
        reads, out = (0, weight[1]) if is_transposed else (1, weight[0])
        walk.fit(node, 1, tuple(x[1] if axis == reads else mask for axis, mask in enumerate(weight)))
    if len(node.inputs) > 2:
        walk.fit(node, 2, (out,))
    walk.keep(node.outputs[0], (x[0], out, *everything(walk.shape(node.outputs[0])[2:])))


def _matmul(walk: Walk, node: ir.Node) -> None:
    a, b = walk.of(node.inputs[0]), walk.of(node.inputs[1])
    if len(a) < 2 or len(b) < 2:
        raise refusal(f"{node.name} multiplies a vector")
    walk.fit(node, 1, (*b[:-2], a[-1], b[-1]))
    leading = walk.shape(node.outputs[0])[:-2]
    batch = everything(leading)
    aligned = [each for operand in (a, b) for each in _aligned(operand[:-2], leading)]
    for axis, mask in aligned:
        batch[axis][:] &= mask
    if not all(np.array_equal(mask, batch[axis]) for axis, mask in aligned):
        raise refusal(f"{node.name} multiplies what no longer fits")
    walk.keep(node.outputs[0], (*batch, a[-2], b[-1]))


def _einsum(walk: Walk, node: ir.Node) -> None:
    """What has one letter has one mask."""
    inputs, _, output = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "." in inputs or not output or any(len(set(term)) < len(term) for term in terms):
        raise refusal(f"{node.name}: {inputs} -> {output}")
    known: dict[str, Mask] = {}
    for term, value in zip(terms, node.inputs, strict=True):
        for letter, mask in zip(term, walk.of(value), strict=True):
            known[letter] = known[letter] & mask if letter in known else mask
    for index, term in enumerate(terms):
        walk.fit(node, index, tuple(known[letter] for letter in term))
    walk.keep(node.outputs[0], tuple(known[letter] for letter in output))


def _gemm(walk: Walk, node: ir.Node) -> None:
    def flag(name: str) -> int:
        return node.attributes[name].as_int() if name in node.attributes else 0

    a, b = walk.of(node.inputs[0]), walk.of(node.inputs[1])
    (rows, reads) = a[::-1] if flag("transA") else a
    columns = b[0] if flag("transB") else b[1]
    walk.fit(node, 1, (columns, reads) if flag("transB") else (reads, columns))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        own = walk.shape(node.inputs[2])
        walk.fit(node, 2, (*everything(own[:-1]), columns if own[-1] == len(columns) else np.ones(1, bool)))
    walk.keep(node.outputs[0], (rows, columns))


def _transpose(walk: Walk, node: ir.Node) -> None:
    before = walk.of(node.inputs[0])
    order = node.attributes["perm"].as_ints() if "perm" in node.attributes else range(len(before))[::-1]
    walk.keep(node.outputs[0], tuple(before[axis] for axis in order))


def _reshape(walk: Walk, node: ir.Node) -> None:
    """Also of Flatten, Squeeze and Unsqueeze, which name no sizes."""
    masks = reshaped(walk.of(node.inputs[0]), walk.shape(node.outputs[0]))
    if masks is None:
        raise refusal(f"{node.name} cuts across what stays")
    walk.keep(node.outputs[0], masks)
    if node.op_type == "Reshape":
        _retarget(walk, node, masks)


def _depth_to_space(walk: Walk, node: ir.Node) -> None:
    """Channels become squares of pixels: all of a square go together."""
    before, side = walk.of(node.inputs[0]), node.attributes["blocksize"].as_int()
    samples, channels, *area = map(len, before)
    is_crd = "mode" in node.attributes and node.attributes["mode"].as_string() == "CRD"
    squares = (channels // side**2, side, side) if is_crd else (side, side, channels // side**2)
    parts = reshaped(before, (samples, *squares, *area))
    at = 1 if is_crd else 3
    if parts is None or not all(mask.all() for index, mask in enumerate(parts) if index not in (0, at)):
        raise refusal(f"{node.name} cuts across what stays")
    walk.keep(node.outputs[0], (parts[0], parts[at], *everything(walk.shape(node.outputs[0])[2:])))


def _expand(walk: Walk, node: ir.Node) -> None:
    shape = walk.shape(node.outputs[0])
    masks = list(everything(shape))
    for axis, mask in _aligned(walk.of(node.inputs[0]), shape):
        masks[axis] = mask
    walk.keep(node.outputs[0], tuple(masks))
    _retarget(walk, node, tuple(masks))


def _retarget(walk: Walk, node: ir.Node, masks: Masks) -> None:
    """Write the new sizes where the target is written out; one that is computed has to come out right by itself."""
    target = node.inputs[1]
    if target is None or target.const_value is None:
        return
    wanted = read(target).copy()
    offset = len(masks) - len(wanted)
    for axis, mask in enumerate(masks[offset:]):
        if wanted[axis] == len(mask) and not mask.all():
            wanted[axis] = mask.sum()
    walk.rewrite(node, 1, wanted)


def _slice(walk: Walk, node: ir.Node) -> None:
    masks = list(walk.of(node.inputs[0]))
    starts, ends = read(node.inputs[1]).copy(), read(node.inputs[2]).copy()
    given = [read(value) if value is not None else None for value in (*node.inputs[3:], None, None)[:2]]
    axes = np.arange(len(starts)) if given[0] is None else given[0]
    steps = np.ones_like(starts) if given[1] is None else given[1]
    for index, axis in enumerate(axes):
        mask, start, end = masks[axis], int(starts[index]), int(ends[index])
        if not mask.all():
            if steps[index] != 1:
                raise refusal(f"{node.name} steps through what has shrunk")
            starts[index] = renumbered(mask, start)
            ends[index] = end if abs(end) > len(mask) else renumbered(mask, end)
        masks[axis] = mask[start : end : int(steps[index])]
    walk.keep(node.outputs[0], tuple(masks))
    walk.rewrite(node, 1, starts)
    walk.rewrite(node, 2, ends)


def _split(walk: Walk, node: ir.Node) -> None:
    before = walk.of(node.inputs[0])
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(before)
    widths = [walk.shape(value)[axis] for value in node.outputs]
    parts = np.split(before[axis], np.cumsum(widths)[:-1])
    for value, part in zip(node.outputs, parts, strict=True):
        walk.keep(value, (*before[:axis], part, *before[axis + 1 :]))
    left = np.array([part.sum() for part in parts], np.int64)
    if left.tolist() == widths:
        return
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        walk.rewrite(node, 1, left)
    elif len(set(left.tolist())) > 1:
        node.attributes.pop("num_outputs", None)
        node.resize_inputs(2)
        node.replace_input_with(1, constant(walk.graph, f"{node.outputs[0].name}.kept_1", left))


def _gather(walk: Walk, node: ir.Node) -> None:
    data, indices = walk.of(node.inputs[0]), node.inputs[1]
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(data)
    if not data[axis].all():
        wanted = read(indices)
        if not data[axis][wanted].all():
            raise refusal(f"{node.name} reads what has gone")
        walk.rewrite(node, 1, np.vectorize(lambda index: renumbered(data[axis], index), otypes=[wanted.dtype])(wanted))
    walk.keep(node.outputs[0], (*data[:axis], *walk.of(indices), *data[axis + 1 :]))


def _concat(walk: Walk, node: ir.Node) -> None:
    shape = walk.shape(node.outputs[0])
    axis = node.attributes["axis"].as_int() % len(shape)
    parts = [walk.of(value) for value in node.inputs]
    shared = next(part for part, value in zip(parts, node.inputs, strict=True) if walk.changed(value))
    for index, part in enumerate(parts):
        walk.fit(node, index, (*shared[:axis], part[axis], *shared[axis + 1 :]))
    joined = np.concatenate([part[axis] for part in parts])
    walk.keep(node.outputs[0], (*shared[:axis], joined, *shared[axis + 1 :]))


def _recurrent(walk: Walk, node: ir.Node) -> None:
    """Weights [directions, gates * units, read]: the state's tell the units. Y is [time, directions, n, units]."""
    x, weight = walk.of(node.inputs[0]), walk.of(node.inputs[2])
    directions, units, gates = weight[0], weight[2], GATES[node.op_type]
    walk.fit(node, 1, (directions, np.tile(units, gates), x[2]))
    if len(node.inputs) > 3:
        walk.fit(node, 3, (directions, np.tile(units, 2 * gates)))
    for index in range(5, min(len(node.inputs), 7)):
        if node.inputs[index] is not None:
            walk.fit(node, index, (directions, *everything(walk.shape(node.inputs[index])[1:2]), units))
    if len(node.inputs) > 7 and node.inputs[7] is not None:
        walk.fit(node, 7, (directions, np.tile(units, 3)))
    node.attributes["hidden_size"] = ir.AttrInt64("hidden_size", int(units.sum()))
    for index, value in enumerate(node.outputs):
        walk.keep(value, (*((x[0],) if index == 0 else ()), directions, x[1], units))


def _nothing(walk: Walk, node: ir.Node) -> None:
    """Shapes are read at run time."""


Rule = Callable[[Walk, ir.Node], None]

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            *("Abs", "Add", "And", "Atan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp"),
            *("Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN"),
            *("LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not"),
            *("Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus"),
            *("Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where", "Xor"),
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        (
            *("BatchNormalization", "Dropout", "InstanceNormalization", "LayerNormalization", "LogSoftmax"),
            *("LpNormalization", "RMSNormalization", "Softmax", "Trilu"),
        ),
        _same,
    ),
    **dict.fromkeys(
        ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "GridSample", "LpPool", "MaxPool", "Resize"), _spatial
    ),
    **dict.fromkeys(
        (
            *("ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
            *("ReduceSum", "ReduceSumSquare"),
        ),
        _reduce,
    ),
    **dict.fromkeys(("Conv", "ConvTranspose"), _convolution),
    **dict.fromkeys(GATES, _recurrent),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Einsum": _einsum,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Shape": _nothing,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
}
