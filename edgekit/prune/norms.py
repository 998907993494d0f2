"""Normalizations over channels (LayerNorm, RMSNorm and what users write like them): they read what is left of them.

Without some of its channels such a normalization takes its statistics over the others. So the network is not equal to
the original with zeros in those channels, but to the original whose normalizations leave them out as well: that is what
the proof compares with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from edgekit.prune.layers import group_norm, layer_norm
from edgekit.prune.rules import RULES, broadcast, reduce, reduce_to_two, same
from edgekit.prune.shapes import constant, expand, getitem, permute, reshape
from edgekit.prune.walk import Value, Walk, alive, modules_of, shape_of

_REDUCING = (layer_norm, group_norm, reduce, reduce_to_two)
_ARITHMETIC = (*_REDUCING, broadcast, same, permute, reshape, expand, constant, getitem)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormCall:
    """One call of a module that normalizes.

    Args:
        module: its name.
        taken: what it normalizes.
        nodes: what it computes.
    """

    module: str
    taken: Node
    nodes: frozenset[Node]


def find_norm_calls(program: ExportedProgram, model: nn.Module) -> tuple[NormCall, ...]:
    """The calls of modules that have one weight for each channel and do nothing but normalize.

    Such a module takes one tensor and returns one of its shape, by statistics and arithmetic; its parameters have one
    number for each channel.
    """
    specs = program.graph_signature.input_specs
    owned = {spec.arg.name for spec in specs if spec.target is not None}
    modules = dict(model.named_modules())
    nodes = alive(program.graph.nodes)
    calls: dict[str, list[Node]] = {}
    for node in nodes:
        stack = node.meta.get("nn_module_stack") or {}
        if node.op == "call_function" and stack:
            calls.setdefault(next(reversed(stack)), []).append(node)
    living, found = set(nodes), []
    for inside in calls.values():
        name = modules_of(inside[0])[-1]
        if name not in modules or not _has_scales(modules[name]):
            continue
        own = frozenset(inside)
        rules = [RULES.get(node.target) for node in inside]
        taken = {each for node in inside for each in node.all_input_nodes if each not in own and each.name not in owned}
        given = [
            node
            for node in inside
            # A conversion to what it is already hands the input itself on, to readers behind the module, too.
            if not (_keeps_values(node) and node.args[0] in taken)
            and any(user in living and user not in own for user in node.users)
        ]
        if (
            len(taken) == len(given) == 1
            and shape_of(first := next(iter(taken))) == shape_of(given[0])
            and any(rule in _REDUCING for rule in rules)
            and all(rule in _ARITHMETIC for rule in rules)
        ):
            found.append(NormCall(module=name, taken=first, nodes=own))
    return tuple(found)


def _keeps_values(node: Node) -> bool:
    return str(node.target).partition(".")[2].partition(".")[0] in {"to", "contiguous", "alias", "detach", "type_as"}


def _has_scales(module: nn.Module) -> bool:
    """Whether all it has is parameters with one number for each of several channels."""
    parameters = list(module.parameters())
    own = list(module.parameters(recurse=False))
    sizes = {max(each.shape, default=1) for each in own}
    return (
        len(own) == len(parameters) > 0
        and not any(each.is_floating_point() for each in module.buffers())
        and len(sizes) == 1
        and all(each.numel() == size > 1 for each in own for size in sizes)
    )


def norm_axes(walk: Walk, calls: Sequence[NormCall], tensors: Mapping[str, Value]) -> dict[str, int]:
    """For each normalizing module the dimension of its input that its weights belong to, after the walk."""
    axes: dict[str, set[int]] = {}
    for call in calls:
        scales = [dim for name, value in tensors.items() if name.rpartition(".")[0] == call.module for dim in value]
        wanted = {tuple(map(walk.atoms.root, dim.tolist())) for dim in scales if dim is not None and len(dim) > 1}
        value = walk.value(call.taken)
        for axis, dim in enumerate(value or ()):
            if dim is not None and tuple(map(walk.atoms.root, dim.tolist())) in wanted:
                axes.setdefault(call.module, set()).add(axis)
    return {module: next(iter(found)) for module, found in axes.items() if len(found) == 1}


def read_the_rest(module: nn.Module, smaller: nn.Module, axis: int, gone: Sequence[int]) -> None:
    """Have a normalizing module leave channels out, in place: `smaller`, without them, normalizes the others.

    Args:
        module: as it was, for all channels.
        smaller: the same module without those that go.
        axis: the dimension of its input that has the channels.
        gone: which ones go; what it gives has zeros there.
    """
    # Kept as its own module, so that whoever moves the network to another precision moves it too.
    module.add_module("without_channels", smaller)

    def forward(x: Tensor, *more: Any, **named: Any) -> Tensor:
        kept = torch.ones(x.shape[axis], dtype=torch.bool, device=x.device)
        kept[torch.tensor(gone, device=x.device)] = False
        indexes = kept.nonzero()[:, 0]
        normalized: Tensor = smaller(x.index_select(axis, indexes), *more, **named)
        return torch.zeros_like(x, dtype=normalized.dtype).index_copy(axis, indexes, normalized)

    module.forward = forward
