"""Regions of a traced graph (`with torch.no_grad()`, `with torch.autocast(...)`), which are graphs of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
"""The operators that stand for a region: settings, its graph, and what goes in. Neither moves a channel."""


def open_regions(program: ExportedProgram) -> ExportedProgram:
    """The same program, with the operators of each region in the graph around it; changed in place."""
    module = program.graph_module
    while found := [node for node in module.graph.nodes if str(node.target) in REGIONS]:
        for node in found:
            _open(module, node)
    module.graph.lint()
    module.recompile()
    return program


def _open(module: GraphModule, node: Node) -> None:
    at = next(index for index, each in enumerate(node.args) if isinstance(each, Node) and each.op == "get_attr")
    inner: Any = getattr(module, str(node.args[at].target))  # type: ignore[union-attr]
    results = _copied(module, inner, node, node.args[at + 1 :])
    for user in list(node.users):
        user.replace_all_uses_with(results[int(user.args[1])])  # type: ignore[arg-type]
        module.graph.erase_node(user)
    module.graph.erase_node(node)


def _copied(module: GraphModule, inner: GraphModule, before: Node, given: Sequence[Any]) -> Sequence[Any]:
    """The nodes of a region, copied before the one that stands for it; what they return."""
    graph: Graph = module.graph
    operands = iter(given)
    copies: dict[Node, Any] = {}
    for node in inner.graph.nodes:
        if node.op == "placeholder":
            copies[node] = next(operands)
        elif node.op == "output":
            return [copies.get(each, each) for each in node.args[0]]
        else:
            with graph.inserting_before(before):
                copies[node] = graph.node_copy(node, lambda each: copies[each])
            if node.op == "get_attr":
                # A region within the region.
                copies[node].target = f"{before.name}_{node.target}"
                setattr(module, copies[node].target, getattr(inner, node.target))
    raise AssertionError("a graph without an output")
