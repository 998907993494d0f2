"""Residual blocks: additions one of whose operands can become zero, so that the block is its shortcut alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

aten = torch.ops.aten
ADDITIONS = (aten.add.Tensor, aten.add_.Tensor)
ZERO_TO_ZERO = (
    *(aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.feature_dropout_.default),
    *(aten.mul.Tensor, aten.mul_.Tensor, aten.contiguous.default, aten.clone.default),
)
"""Operators that answer zero where an operand of their output's shape is zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBlock:
    """A branch that is added to a shortcut.

    Args:
        name: what its modules have in common in their names, unique among the blocks.
        last: the module whose output is the branch's, which gives way to zeros.
        modules: the other modules of the branch that have parameters, which give way to nothing.
        shape: the branch's output for one sample, without the batch.
    """

    name: str
    last: str
    modules: tuple[str, ...]
    shape: tuple[int, ...]


class ZeroBranch(nn.Module):
    """What is left of a removed branch: zeros [n, *shape], whatever comes in.

    >>> ZeroBranch((2,))(torch.ones(3, 5)).tolist()
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Zeros of the input's batch size, dtype and device."""
        return x.new_zeros((x.shape[0], *self.shape))

    def extra_repr(self) -> str:
        """The shape, for `print(model)`."""
        return f"shape={self.shape}"


def find_blocks(program: ExportedProgram, model: nn.Module) -> tuple[ResidualBlock, ...]:
    """Every removable residual branch, in the order of the graph."""
    owners = {
        spec.arg.name: str(spec.target).rpartition(".")[0]
        for spec in program.graph_signature.input_specs
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
    }
    leaves = {name for name, module in model.named_modules() if not list(module.children())}
    calls: dict[str, set[Node]] = {}
    for node in program.graph.nodes:
        if node.op == "call_function" and (module := _module(node)) is not None:
            calls.setdefault(module, set()).add(node)
    graph = _Graph(ancestors=_ancestors(program), owners=owners, leaves=leaves, calls=calls)
    found: list[ResidualBlock] = []
    for node in program.graph.nodes:
        if node.target not in ADDITIONS or not all(isinstance(argument, Node) for argument in node.args[:2]):
            continue
        left, right = node.args[:2]
        sides = [_Side(sum=node, branch=left, shortcut=right), _Side(sum=node, branch=right, shortcut=left)]
        branches = [block for side in sides if (block := _removable(side, graph)) is not None]
        if branches:
            # Of a block and its projection the larger one is the block.
            found.append(max(branches, key=lambda block: len(block.modules)))
    return _unique(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    ancestors: Mapping[Node, frozenset[Node]]
    owners: Mapping[str, str]
    leaves: set[str]
    calls: Mapping[str, set[Node]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    sum: Node
    branch: Any
    shortcut: Any


def _maker(branch: Node) -> Node:
    """The last node of a branch that layers make: what follows it answers zero to zero."""
    while branch.target in ZERO_TO_ZERO:
        sources = [source for source in branch.all_input_nodes if source.meta["val"].shape == branch.meta["val"].shape]
        if not sources:
            break
        branch = sources[0]
    return branch


def _removable(side: _Side, graph: _Graph) -> ResidualBlock | None:
    shape = side.branch.meta["val"].shape
    if shape != side.sum.meta["val"].shape or shape != side.shortcut.meta["val"].shape or len(shape) < 2:
        return None
    own = (graph.ancestors[side.branch] | {side.branch}) - graph.ancestors[side.shortcut] - {side.shortcut}
    inside = {each for each in own if each.op == "call_function"}
    parameters = {graph.owners[each.name] for each in own if each.op == "placeholder" and each.name in graph.owners}
    last = _module(_maker(side.branch))
    if last is None or last not in parameters or not parameters <= graph.leaves:
        return None
    if any(user not in inside and user is not side.sum for each in inside for user in each.users):
        return None
    if any(not graph.calls.get(module, set()) <= inside for module in parameters):
        return None
    if any(user not in inside for each in own if each.op == "placeholder" for user in each.users):
        return None
    return ResidualBlock(
        name=_common(sorted(parameters)),
        last=last,
        modules=tuple(sorted(parameters - {last})),
        shape=tuple(int(size) for size in shape[1:]),
    )


def _module(node: Node) -> str | None:
    """The name of the innermost module that a node was traced in."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return None
    name = str(list(stack.values())[-1][0])
    return name.removeprefix("L['self'].").replace("L['self']", "")


def _ancestors(program: ExportedProgram) -> dict[Node, frozenset[Node]]:
    found: dict[Node, frozenset[Node]] = {}
    for node in program.graph.nodes:
        sources = node.all_input_nodes
        found[node] = frozenset(sources).union(*(found[source] for source in sources))
    return found


def _common(names: list[str]) -> str:
    parts = [name.split(".") for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared[: min(map(len, parts)) - 1] if len(names) == 1 else shared) or names[-1]


def _unique(blocks: list[ResidualBlock]) -> tuple[ResidualBlock, ...]:
    names = [block.name for block in blocks]
    return tuple(
        block
        if names.count(block.name) == 1
        else ResidualBlock(name=block.last, last=block.last, modules=block.modules, shape=block.shape)
        for block in blocks
    )
