"""What `torch.onnx.export` would decompose, written down in its place: then it need not trace the program again."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from edgekit.export.functional import may_write

aten = torch.ops.aten


def lower(program: ExportedProgram) -> ExportedProgram:
    """The same program with the usual operators that ONNX has no translation for as PyTorch itself decomposes them.

    `program`, in which nothing writes, is changed.

    >>> program = lower(torch.export.export(torch.nn.AdaptiveAvgPool2d(1), (torch.ones(2, 3, 4, 4),)))
    >>> [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    ['aten.mean.dim']
    """
    graph = program.graph
    for node in list(graph.nodes):
        rule = RULES.get(node.target)
        if rule is None:
            continue
        with graph.inserting_before(node):
            lowered = rule(graph, node, _arguments(node))
        if lowered is not None:
            node.replace_all_uses_with(lowered, propagate_meta=False)
            program.graph_signature.replace_all_uses(node.name, lowered.name)
            graph.erase_node(node)
    graph.lint()
    program.graph_module.recompile()
    return program


def is_lowered(program: ExportedProgram, known: Collection[Any]) -> bool:
    """Whether nothing of a program is left to be decomposed: all its operators are among `known`, and none writes."""
    calls = [node for node in program.graph.nodes if node.op not in {"placeholder", "output"}]
    return not any(map(may_write, calls)) and all(
        node.target in known
        if isinstance(node.target, OpOverload)
        else getattr(node.target, "__module__", "") in ("_operator", "operator")
        for node in calls
    )


def _arguments(node: Node) -> dict[str, Any]:
    """The arguments by name, defaults included."""
    assert isinstance(node.target, OpOverload)
    named = node.target._schema.arguments  # noqa: SLF001 - no public name
    given = {argument.name: value for argument, value in zip(named, node.args, strict=False)}
    return (
        {argument.name: argument.default_value for argument in named if argument.has_default_value()}
        | given
        | node.kwargs
    )


def _called(graph: Graph, node: Node, target: Callable[..., Any], *arguments: Any, value: Any = None) -> Node:
    """A call in the place of `node`, with what is known of it."""
    made = graph.call_function(target, arguments)
    made.meta = dict(node.meta) if value is None else {**node.meta, "val": value}
    return made


def _batch_norm(graph: Graph, node: Node, given: dict[str, Any]) -> Node | None:
    if given["training"] or given["running_mean"] is None or given["running_var"] is None:
        return None
    names = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
    value = node.meta["val"]
    nothing = value.new_empty((0,))
    target = aten._native_batch_norm_legit_no_training.default  # noqa: SLF001 - the operator's public name in the graph
    found = _called(graph, node, target, *(given[name] for name in names), value=(value, nothing, nothing))
    return _called(graph, node, operator.getitem, found, 0)


def _mean(graph: Graph, node: Node, given: dict[str, Any]) -> Node | None:
    if any(size != 1 for size in given["output_size"]):
        return None
    axes = [-1 - axis for axis in range(len(given["output_size"]))]
    return _called(graph, node, aten.mean.dim, given["self"], axes, True)


def _convolution(graph: Graph, node: Node, given: dict[str, Any]) -> Node:
    parts = ("input", "weight", "bias", "stride", "padding", "dilation")
    rest = (True, given["output_padding"], given["groups"])
    return _called(graph, node, aten.convolution.default, *(given[name] for name in parts), *rest)


RULES: dict[Any, Callable[[Graph, Node, dict[str, Any]], Node | None]] = {
    aten.batch_norm.default: _batch_norm,
    aten.adaptive_avg_pool2d.default: _mean,
    aten.conv_transpose2d.input: _convolution,
}
