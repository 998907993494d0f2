"""Exact rewrites of the `torch.export` graph: what changes no value goes before conversion.

A pruned residual block leaves a branch that gives zeros and is added to the shortcut; the ONNX optimizer does not see
through it, because the zeros' batch size is dynamic. Here shapes are symbolic expressions and can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import statically_known_true, sym_eq

from edgekit.export.functional import functional

aten = torch.ops.aten

ZEROS = {
    aten.zeros.default: None,
    aten.new_zeros.default: None,
    aten.zeros_like.default: None,
    aten.full.default: 1,
    aten.new_full.default: 2,
    aten.full_like.default: 1,
}
"""Operators that give a constant tensor, and the position of the argument that must be 0 for it to be zeros."""

SAME_SHAPE_IS_NOTHING = {
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,  # noqa: SLF001 - the operator's public name in the graph
    aten.expand.default,
    aten.slice.Tensor,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.broadcast_to.default,
}
"""Views that keep the order of elements: where the shape stays, they do nothing."""

NOTHING = {
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
}
"""Operators whose result equals their input, in a graph without mutation."""

PADS = {aten.pad.default, aten.constant_pad_nd.default}

MOVES = {
    *SAME_SHAPE_IS_NOTHING,
    *NOTHING,
    aten.permute.default,
    aten.transpose.int,
    aten.select.int,
    aten.unsqueeze.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
}
"""Operators whose every value is a value of their input, or a mean of some."""


def simplify(program: ExportedProgram) -> ExportedProgram:
    """A program that computes the same values with fewer operators; `program` itself may be changed.

    Removed: `x + 0` and `x - 0` where the zeros have the shape of x, ReLUs of what is never negative, dropout in
    evaluation, copies, casts to the same type, and views, slices, pads, permutations that change nothing.

    >>> class Twice(torch.nn.Module):
    ...     def forward(self, x):
    ...         return torch.relu(torch.relu(x + x.new_zeros(x.shape)))
    >>> program = simplify(torch.export.export(Twice(), (torch.ones(2, 3),)))
    >>> [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    ['aten.relu.default']
    """
    # Where nothing writes into what was there before, values can be reasoned about.
    program = functional(program)
    graph = program.graph_module.graph
    changed = True
    while changed:
        changed = False
        for node in list(graph.nodes):
            source = _equal_input(node)
            if source is not None and node.users:
                node.replace_all_uses_with(source, propagate_meta=False)
                # Outputs are named in the signature, too.
                program.graph_signature.replace_all_uses(node.name, source.name)
                # Not left to the elimination of dead code: that takes dropout for something that has effects.
                graph.erase_node(node)
                changed = True
        graph.eliminate_dead_code()
    graph.lint()
    program.graph_module.recompile()
    return program


def _equal_input(node: Node) -> Node | None:
    """An input of `node` that always equals its result."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    for rule in (_plus_zeros, _relu_of_nonnegative, _no_op):
        source = rule(node)
        if source is not None and _same(source, node):
            return source
    return None


def _plus_zeros(node: Node) -> Node | None:
    if node.target not in (aten.add.Tensor, aten.sub.Tensor):
        return None
    left, right = node.args[:2]
    if _is_zeros(right) and isinstance(left, Node):
        return left
    is_sum = node.target == aten.add.Tensor and node.kwargs.get("alpha", 1) == 1
    return right if is_sum and _is_zeros(left) and isinstance(right, Node) else None


def _is_zeros(value: Any) -> bool:
    if not isinstance(value, Node) or value.target not in ZEROS:
        return False
    position = ZEROS[value.target]
    return position is None or bool(value.args[position] == 0)


def _relu_of_nonnegative(node: Node) -> Node | None:
    source = node.args[0] if node.args else None
    is_relu = node.target == aten.relu.default and isinstance(source, Node)
    return source if is_relu and isinstance(source, Node) and _never_negative(source) else None


def _never_negative(node: Node) -> bool:
    """Whether no value of `node` can be below 0: a ReLU or sigmoid, and what only moves or averages their values.

    A residual block whose branch was pruned leaves relu(pad(slice(relu(x)))) where it had a padded shortcut.
    """
    while node.target in MOVES or (node.target in PADS and not _filled_below_zero(node)):
        source = node.args[0]
        if not isinstance(source, Node):
            return False
        node = source
    return node.target in (aten.relu.default, aten.sigmoid.default)


def _filled_below_zero(node: Node) -> bool:
    """Whether a pad fills with a negative constant (its last argument; none stands for 0)."""
    position = 3 if node.target == aten.pad.default else 2
    value = node.args[position] if len(node.args) > position else node.kwargs.get("value")
    return value is not None and not (isinstance(value, int | float) and value >= 0)


def _no_op(node: Node) -> Node | None:
    source = node.args[0] if node.args else None
    if not isinstance(source, Node) or not isinstance(source.meta.get("val"), torch.Tensor):
        return None
    tests: dict[Any, Callable[[], bool]] = {
        aten.dropout.default: lambda: not node.args[2],
        aten.pad.default: lambda: all(amount == 0 for amount in _ints(node.args[1])),
        aten.constant_pad_nd.default: lambda: all(amount == 0 for amount in _ints(node.args[1])),
        aten.permute.default: lambda: _ints(node.args[1]) == list(range(source.meta["val"].ndim)),
        # Same type and shape are all that is left to compare.
        aten.to.dtype: lambda: True,
        aten._to_copy.default: lambda: True,  # noqa: SLF001 - the operator's public name in the graph
    }
    if node.target in NOTHING or node.target in SAME_SHAPE_IS_NOTHING:
        return source
    test = tests.get(node.target)
    return source if test is not None and test() else None


def _ints(values: Any) -> list[Any]:
    return list(values)


def _same(source: Node, node: Node) -> bool:
    """Whether both have one type, one device and provably one shape and layout.

    The layout matters to later views alone: without the copy before it, a view of permuted elements is an error.
    """
    before, after = source.meta.get("val"), node.meta["val"]
    return (
        isinstance(before, torch.Tensor)
        and before.dtype == after.dtype
        and before.device == after.device
        and before.ndim == after.ndim
        and statically_known_true(sym_eq(tuple(before.shape), tuple(after.shape)))
        and statically_known_true(sym_eq(before.stride(), after.stride()))
    )
