"""What can be removed together: channel groups and whole blocks, found on the graph that `torch.export` gives."""

from __future__ import annotations

import copy
import math
import warnings
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from edgekit.errors import PruneError, did_you_mean
from edgekit.prune.atoms import Atoms
from edgekit.prune.blocks import ResidualBlock
from edgekit.prune.counts import Count
from edgekit.prune.heads import PERMUTATIONS
from edgekit.prune.layers import addmm, matmul
from edgekit.prune.norms import find_norm_calls, norm_axes
from edgekit.prune.recurrent import recurrent, recurrent_cell
from edgekit.prune.recurrent_layers import RecurrentLayer, find_layers
from edgekit.prune.regions import open_regions
from edgekit.prune.residual import find_blocks
from edgekit.prune.rules import RULES
from edgekit.prune.walk import Value, Values, Walk, alive, carries_channels, sizes_of
from edgekit.workload import Batch
from edgekit.workload.tracing import whole_layers

_DRY_RUN = "`edgekit prune --dry-run` prints what can be pruned and what is frozen, and why"
Block = ResidualBlock | RecurrentLayer
"""What can be removed as a whole."""
Members = Mapping[tuple[str, int], tuple[int, ...]]
"""For each (parameter or buffer, dimension): the indexes that belong to one channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Channels that live in the same dimensions of the same tensors; each can be removed alone.

    Args:
        name: of the module whose output they are, unique in the model.
        channels: for each channel, its slices; removing the channel removes all of them.
        counts: attributes of the user's modules that have the number of channels and change with it.
    """

    name: str
    channels: tuple[Members, ...]
    counts: tuple[Count, ...] = ()

    def __len__(self) -> int:
        return len(self.channels)

    def widths(self, grid: int) -> list[int]:
        """The widths below the present one that take whole multiples of `grid` indexes out of every tensor.

        A channel can be several indexes wide: a group of a GroupNorm, of a grouped convolution.
        """
        unit = grid // math.gcd(grid, *(len(indexes) for indexes in self.channels[0].values()))
        return [] if len(self) % unit else list(range(len(self) - unit, 0, -unit))

    @property
    def tensors(self) -> tuple[tuple[str, int], ...]:
        """The (tensor, dimension) pairs that the group runs through."""
        return tuple(sorted(self.channels[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """The outcome of an analysis.

    Args:
        groups: channels that may be removed.
        blocks: residual blocks and recurrent layers that may be removed.
        frozen: what must stay, and why.
        sizes: the shape of every parameter and buffer.
        producers: parameters that make channels (weights of convolutions, linear and recurrent layers, embeddings) with
            their output dimension.
        scales: BatchNorm weights.
        norms: modules that normalize over channels, with the dimension of their input that has those.
    """

    groups: tuple[ChannelGroup, ...]
    blocks: tuple[Block, ...]
    frozen: tuple[tuple[str, str], ...]
    sizes: Mapping[str, tuple[int, ...]]
    producers: Mapping[str, int]
    scales: frozenset[str]
    norms: Mapping[str, int] = field(default_factory=dict)

    def group(self, name: str) -> ChannelGroup:
        """The group of that name.

        Raises:
            PruneError: there is none; the message lists those that there are.
        """
        for group in self.groups:
            if group.name == name:
                return group
        raise PruneError(
            f"no channel group {name!r}",
            where="prune",
            rule=f"one of {', '.join(group.name for group in self.groups) or '(none: everything is frozen)'}",
            way_out=did_you_mean(name, (group.name for group in self.groups), _DRY_RUN),
        )

    def block(self, name: str) -> Block:
        """The block of that name.

        Raises:
            PruneError: there is none; the message lists those that there are.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        raise PruneError(
            f"no residual block {name!r}",
            where="prune",
            rule=f"one of {', '.join(block.name for block in self.blocks) or '(none)'}",
            way_out=did_you_mean(name, (block.name for block in self.blocks), _DRY_RUN),
        )

    def __str__(self) -> str:
        lines = [f"{len(self.groups)} channel groups"]
        lines += [f"  {group.name}: {len(group)} channels" for group in self.groups]
        layers = [block.name for block in self.blocks if isinstance(block, RecurrentLayer)]
        residual = [block.name for block in self.blocks if block.name not in layers]
        lines += [f"{len(residual)} residual blocks", *(f"  {name}" for name in residual)]
        lines += [f"{len(layers)} recurrent layers", *(f"  {name}" for name in layers)] if layers else []
        lines += [f"{len(self.frozen)} frozen", *(f"  {what}: {why}" for what, why in self.frozen)]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "groups": [{"name": group.name, "channels": len(group)} for group in self.groups],
            "blocks": [block.name for block in self.blocks],
            "frozen": [{"what": what, "why": why} for what, why in self.frozen],
        }


def trace(model: nn.Module, example: Batch) -> ExportedProgram:
    """The model's graph for the sizes of `example`.

    Raises:
        PruneError: `torch.export` refuses the model.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings(), whole_layers():
            # torch.export warns of the flat weights that nn.LSTM keeps beside its parameters: not ours to judge.
            warnings.filterwarnings("ignore", message="The tensor attributes? ")
            return open_regions(torch.export.export(model, example.args, example.kwargs, strict=False))
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise PruneError(
            f"torch.export refuses the model: {type(error).__name__}: {first}",
            where=type(model).__name__,
            rule="no control flow that depends on values",
            way_out="`torch.export.export(model, args)` by itself tells more; "
            "without pruning, `--rounds 0` only quantizes",
        ) from error


def couple(model: nn.Module, example: Batch) -> Coupling:
    """The coupling that the graph shows, before any probing of what the code makes of it."""
    program = trace(without_caches(model).eval(), example)
    atoms = Atoms()
    walk = Walk(atoms)
    norms = find_norm_calls(program, model)
    walk.normalizing = frozenset(node for call in norms for node in call.nodes)
    first = first_names(model)
    tensors = _name_inputs(program, walk, first)
    _freeze_idle(program, tensors, first, atoms)
    unknown: dict[tuple[str, str], int] = defaultdict(int)
    for node in alive(program.graph.nodes):
        if node.op == "call_function":
            value = _follow(walk, node)
            if value is None:
                touched = [walk.values.get(source, ()) for source in node.all_input_nodes]
                if any(map(carries_channels, touched)):
                    lack = "its rule does not cover this use" if node.target in RULES else "no rule for it"
                    unknown[str(node.target), lack] += 1
                for each in touched:
                    walk.pin(each, f"{node.target} has no rule")
                value = _blank(node)
            walk.values[node] = value
        elif node.op == "output":
            for source in node.all_input_nodes:
                walk.pin(walk.values[source], "an output of the model")
    blocks = find_blocks(program, model, example)
    layers = find_layers(program, model, blocks).tied(walk)
    producers, scales = _roles(program, first)
    groups = _groups(tensors, atoms, producers)
    return Coupling(
        groups=groups,
        blocks=(*blocks, *layers),
        frozen=_frozen(tensors, atoms, unknown),
        sizes=tensor_sizes(model),
        producers=producers,
        scales=scales,
        norms=norm_axes(walk, norms, tensors),
    )


def _name_inputs(program: ExportedProgram, walk: Walk, first: Mapping[str, str]) -> dict[str, Value]:
    """Atoms for every parameter and buffer; a tensor under several names has those of the first one."""
    tensors: dict[str, Value] = {}
    kinds = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = kinds[node.name]
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            walk.values[node] = ()
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and value.is_floating_point():
            name = first.get(str(spec.target), str(spec.target))
            if name not in tensors:
                tensors[name] = tuple(walk.atoms.fresh(size) for size in sizes_of(value))
            walk.values[node] = tensors[name]
        else:
            walk.values[node] = tuple(None for _ in value.shape)
    return tensors


def _freeze_idle(
    program: ExportedProgram, tensors: Mapping[str, Value], first: Mapping[str, str], atoms: Atoms
) -> None:
    """Nothing tells how the tensors of a module that forward does not use hang together."""
    read = {source.name for node in alive(program.graph.nodes) for source in node.all_input_nodes}
    targets = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs}
    used = {first.get(targets[name], targets[name]) for name in read if name in targets}
    for name, value in tensors.items():
        for dim in value:
            if dim is not None and name not in used:
                atoms.pin(dim, "forward does not use it")


def _follow(walk: Walk, node: Node) -> Values | None:
    """What the rule for a node says; None without a rule, or where it does not cover this use of the operator."""
    rule = RULES.get(node.target)
    if rule is None:
        return None
    try:
        found = rule(walk, node)
    except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError, GuardOnDataDependentSymNode):
        # Arguments that the rule does not know, or that depend on values.
        # What it has joined so far only ties more together than need be.
        return None
    shapes = node.meta["val"]
    pairs = zip(found, shapes, strict=True) if isinstance(found, list) else [(found, shapes)]
    for value, tensor in pairs:
        sizes = sizes_of(tensor) if isinstance(tensor, torch.Tensor) else ()
        if len(value) != len(sizes):
            return None
        if any(dim is not None and len(dim) != size for dim, size in zip(value, sizes, strict=True)):
            return None
    return found


def _blank(node: Node) -> Values:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return tuple(None for _ in value.shape)
    if isinstance(value, list | tuple):
        return [tuple(None for _ in part.shape) if isinstance(part, torch.Tensor) else () for part in value]
    return ()


def _groups(tensors: dict[str, Value], atoms: Atoms, producers: Mapping[str, int]) -> tuple[ChannelGroup, ...]:
    members: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(lambda: defaultdict(list))
    for name, value in tensors.items():
        for axis, dim in enumerate(value):
            if dim is not None:
                for index, atom in enumerate(dim.tolist()):
                    root = atoms.root(atom)
                    if root != 0:
                        members[root][name, axis].append(index)
    alike: dict[frozenset[tuple[tuple[str, int], int]], list[Members]] = defaultdict(list)
    for channel in members.values():
        signature = frozenset((key, len(indexes)) for key, indexes in channel.items())
        alike[signature].append({key: tuple(indexes) for key, indexes in channel.items()})
    groups: list[ChannelGroup] = []
    taken: set[str] = set()
    for channels in alike.values():
        weights = [name for name, axis in channels[0] if axis == producers.get(name, 0) and name.endswith("weight")]
        first = next((name for name in tensors if name in weights), next(iter(channels[0]))[0])
        name = base = first.rpartition(".")[0] or first
        number = 2
        while name in taken:
            name, number = f"{base}#{number}", number + 1
        taken.add(name)
        groups.append(ChannelGroup(name=name, channels=tuple(channels)))
    order = {name: index for index, name in enumerate(tensors)}
    return tuple(sorted(groups, key=lambda group: min(order[name] for name, _ in group.channels[0])))


def _frozen(
    tensors: dict[str, Value], atoms: Atoms, unknown: Mapping[tuple[str, str], int]
) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {
        f"operator {name}": f"{lack} ({n}×); what it touches stays" for (name, lack), n in unknown.items()
    }
    owner: dict[int, str] = {}
    for name, value in tensors.items():
        for axis, dim in enumerate(value):
            if dim is not None:
                owner.update(dict.fromkeys(dim.tolist(), f"{name} dim {axis}"))
    for atom, reason in atoms.reasons:
        what = owner.get(atom)
        if what is not None and reason != "a kernel's size":
            found.setdefault(what, reason)
    return tuple(found.items())


def _roles(program: ExportedProgram, first: Mapping[str, str]) -> tuple[dict[str, int], frozenset[str]]:
    specs = [spec for spec in program.graph_signature.input_specs if spec.target is not None]
    names = {spec.arg.name: first.get(str(spec.target), str(spec.target)) for spec in specs}
    producers: dict[str, int] = {}
    scales: set[str] = set()
    for node in program.graph.nodes:
        if RULES.get(node.target) in (recurrent, recurrent_cell):
            weights = [names[each.name] for each in node.all_input_nodes if each.name in names]
            producers |= {name: 0 for name in weights if name.rpartition(".")[2].startswith("weight")}
            continue
        if RULES.get(node.target) in (matmul, addmm):
            # Written as a product: (a, weight [in, out]) or (bias, a, weight), where the weight may be turned first.
            weight, turned = node.args[-1], False
            if isinstance(weight, Node) and weight.target in PERMUTATIONS:
                weight, turned = weight.args[0], True
            if isinstance(weight, Node) and weight.name in names:
                producers[names[weight.name]] = 0 if turned else 1
            continue
        operation = str(node.target)
        tables = node.args[:1] if "embedding" in operation else node.args[1:2]
        name = next((names.get(each.name) for each in tables if isinstance(each, Node)), None)
        if node.op != "call_function" or name is None:
            continue
        if "conv" in operation or "linear" in operation:
            # A table of words that also says how likely each is makes features where it is looked up.
            producers.setdefault(name, 1 if "transpose" in operation else 0)
        elif "embedding" in operation:
            producers[name] = 1
        elif "batch_norm" in operation:
            scales.add(name)
    return producers, frozenset(scales)


def without_caches(model: nn.Module) -> nn.Module:
    """A copy of `model` whose modules have forgotten what they computed from their weights.

    Attentions of timm (LeViT, EfficientFormer, TinyViT) keep their biases by position in eval mode, and drop them when
    training begins; kept ones would outlive the heads that they are for.
    """
    twin = copy.deepcopy(model)
    modes = [(module, module.training) for module in twin.modules()]
    twin.train()
    for module, training in modes:
        module.training = training
    return twin


def first_names(model: nn.Module) -> dict[str, str]:
    """For every name of a parameter the first one that it has; they differ where weights are tied.

    >>> tied = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    >>> tied[1].weight = tied[0].weight
    >>> first_names(tied)
    {'0.weight': '0.weight', '1.weight': '0.weight'}
    """
    found: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {name: found.setdefault(id(parameter), name) for name, parameter in named}


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every floating-point parameter and buffer by name."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: value for name, value in named if value.is_floating_point()}


def tensor_sizes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every floating-point parameter and buffer."""
    return {name: tuple(value.shape) for name, value in tensors_of(model).items()}


def removed_slices(channels: list[Members]) -> dict[str, dict[int, np.ndarray]]:
    """For each tensor and dimension the sorted indexes that go with `channels`."""
    found: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for channel in channels:
        for (name, axis), indexes in channel.items():
            found[name][axis].update(indexes)
    return {name: {axis: np.array(sorted(indexes)) for axis, indexes in axes.items()} for name, axes in found.items()}
