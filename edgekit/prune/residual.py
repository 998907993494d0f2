"""Finding residual blocks: additions one of whose operands can become zero, so that the block is its shortcut alone."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from edgekit.prune.blocks import ResidualBlock, unfused_attention, within
from edgekit.prune.walk import alive, modules_of, sizes_of
from edgekit.workload import Batch

aten = torch.ops.aten
ADDITIONS = (aten.add.Tensor, aten.add_.Tensor)
ZERO_TO_ZERO = (
    *(aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default, aten.feature_dropout_.default),
    *(aten.mul.Tensor, aten.mul_.Tensor, aten.contiguous.default, aten.clone.default),
    *(aten.type_as.default, aten.to.dtype),
)
"""Operators that answer zero where an operand of their output's shape is zero."""
MOVES = (
    *(aten.permute.default, aten.transpose.int, aten.view.default, aten.reshape.default, aten.flatten.using_ints),
    *(aten.unflatten.int, aten.squeeze.dim, aten.unsqueeze.default, aten.numpy_T.default, aten.t.default),
)
"""Operators that only move elements about."""
PRODUCTS = (aten.matmul.default, aten.mm.default, aten.addmm.default)
FEATURES_LAST = (nn.Linear, nn.LayerNorm, nn.RNNBase)


def find_blocks(program: ExportedProgram, model: nn.Module, example: Batch) -> tuple[ResidualBlock, ...]:
    """Every removable residual branch, in the order of the graph."""
    graph = _Graph.of(program, model, example)
    found: list[ResidualBlock] = []
    for node in graph.nodes:
        if node.target not in ADDITIONS or not all(isinstance(argument, Node) for argument in node.args[:2]):
            continue
        left, right = node.args[:2]
        sides = [_Side(sum=node, branch=left, shortcut=right), _Side(sum=node, branch=right, shortcut=left)]
        branches = [block for side in sides if (block := _removable(side, graph)) is not None]
        if branches:
            # Of a block and its projection the larger one is the block.
            found.append(max(branches, key=lambda block: (len(block.modules), bool(block.whole))))
    return _unique(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What a module took and gave: the shape of its first tensor, that of its first output, and how many more."""

    taken: tuple[int, ...]
    given: tuple[int, ...]
    further: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    sum: Node
    branch: Any
    shortcut: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """What of the graph counts.

    Args:
        nodes: those that an output depends on.
        owners: for each parameter or buffer its module.
        modules: the model's, by name.
        inside: for each module, the nodes that it and its children make.
        calls: for each module that was called, what it took and gave.
    """

    nodes: tuple[Node, ...]
    owners: Mapping[Node, str]
    modules: Mapping[str, nn.Module]
    inside: Mapping[str, set[Node]]
    calls: Mapping[str, _Call]

    @classmethod
    def of(cls, program: ExportedProgram, model: nn.Module, example: Batch) -> _Graph:
        targets = {
            spec.arg.name: str(spec.target).rpartition(".")[0]
            for spec in program.graph_signature.input_specs
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER)
        }
        nodes = tuple(alive(program.graph.nodes))
        inside: dict[str, set[Node]] = {}
        for node in nodes:
            for module in modules_of(node):
                inside.setdefault(module, set()).add(node)
        return cls(
            nodes=nodes,
            owners={node: targets[node.name] for node in nodes if node.name in targets},
            modules=dict(model.named_modules()),
            inside=inside,
            calls=_calls(model, example),
        )

    def cone(self, side: _Side) -> set[Node]:
        """What is computed for the branch alone: from each of these nodes every way leads through the branch."""
        living, found = set(self.nodes), set[Node]()
        for node in reversed(self.nodes):
            readers = {user for user in node.users if user in living}
            if (node is side.branch and readers == {side.sum}) or (readers and readers <= found):
                found.add(node)
        return found

    def whole(self, maker: Node, chain: Sequence[Node], cone: set[Node]) -> str:
        """The outermost module that computes nothing but (a part of) the branch, and its output last; or none."""
        for name in modules_of(maker):
            own = self.inside[name]
            leaving = {node for node in own if any(user in cone and user not in own for user in node.users)}
            if name and name in self.calls and own <= cone and leaving <= set(chain):
                return name
        return ""

    def outermost(self, leaf: str, cone: set[Node]) -> str:
        """The outermost module around `leaf` that computes only for the branch and gives one tensor; or none.

        Nothing of it is left to run: not an activation that would write into what comes in.
        """
        parts = leaf.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            if self.inside.get(name, {self.nodes[-1]}) <= cone and name in self.calls and not self.calls[name].further:
                return name
        return ""


def _removable(side: _Side, graph: _Graph) -> ResidualBlock | None:
    shape = _shape(side.branch)
    if shape is None or len(shape) < 2 or not shape == _shape(side.sum) == _shape(side.shortcut):
        return None
    cone = graph.cone(side)
    chain = list(_chain(side.branch))
    whole = graph.whole(chain[-1], chain, cone)
    last = _maker(chain[-1], cone, graph)
    if last is None or not whole or not within(last, whole):
        return None
    owners = {graph.owners[node] for node in cone if node in graph.owners}
    others = {graph.outermost(name, cone) for name in owners if not within(name, whole)}
    call = graph.calls[whole]
    # The features of a linear layer come last, behind samples and positions.
    in_rows = isinstance(graph.modules[last], FEATURES_LAST) and call.taken[:-1] == call.given[:-1]
    leading = len(call.given) - 1 if in_rows else 1
    return ResidualBlock(
        name=_common(sorted(owners)) or whole,
        last=last,
        modules=tuple(sorted(name for name in others if name and not within(whole, name))),
        shape=call.given[leading:],
        leading=leading,
        whole="" if whole == last else whole,
        further=call.further,
    )


def _chain(branch: Node) -> Iterator[Node]:
    """From a branch's output back to the node that makes it: what follows that one answers zero to zero."""
    yield branch
    while branch.target in ZERO_TO_ZERO or branch.target in MOVES:
        sources = [
            source for source in branch.all_input_nodes if branch.target in MOVES or _shape(source) == _shape(branch)
        ]
        if not sources or sources[0].op != "call_function":
            return
        branch = sources[0]
        yield branch


def _maker(node: Node, cone: set[Node], graph: _Graph) -> str | None:
    """The module whose parameters make a node's channels, behind activations."""
    while node in cone and node.op == "call_function":
        sources = list(node.all_input_nodes)
        if node.target in PRODUCTS:
            # A weight that is turned first is still the weight.
            sources += [each for source in sources if source.target in MOVES for each in source.all_input_nodes]
        owners = [graph.owners[source] for source in sources if source in graph.owners]
        if owners:
            return owners[0]
        # One of several outputs of an operator, or of one output its elements.
        is_part = node.target is operator.getitem
        sources = [source for source in node.all_input_nodes if is_part or _shape(source) == _shape(node)]
        if not sources:
            return None
        node = sources[0]
    return None


def _shape(node: Node) -> tuple[int, ...] | None:
    value = node.meta.get("val")
    return sizes_of(value) if isinstance(value, Tensor) else None


def _calls(model: nn.Module, example: Batch) -> dict[str, _Call]:
    """What each module that takes and returns a tensor first took and gave."""
    found: dict[str, _Call] = {}
    twin = copy.deepcopy(model).eval()

    def watch(name: str, module: nn.Module) -> None:
        def note(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            taken = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            given = list(output) if isinstance(output, tuple) else [output]
            if taken and given and isinstance(given[0], Tensor):
                found[name] = _Call(taken=tuple(taken[0].shape), given=tuple(given[0].shape), further=len(given) - 1)

        module.register_forward_hook(note, with_kwargs=True)

    for name, module in twin.named_modules():
        watch(name, module)
    with torch.no_grad(), unfused_attention():
        example.call(twin)
    return found


def _common(names: list[str]) -> str:
    parts = [name.split(".") for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared[:-1] if len(names) == 1 else shared)


def _unique(blocks: list[ResidualBlock]) -> tuple[ResidualBlock, ...]:
    """A name that several blocks have in common, one around the other or beside it, is none of theirs alone."""
    names = [block.name for block in blocks]
    return tuple(
        replace(block, name=block.ending) if sum(within(name, block.name) for name in names) > 1 else block
        for block in blocks
    )
