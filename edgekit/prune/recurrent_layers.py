"""Recurrent layers that may go: what they read is as wide as what they give.

These are all layers of a module but its first, and whole modules of one layer that read another one's sequence: such a
stack is what a module of several layers is, in the user's own words.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import Node

from edgekit.prune.blocks import ResidualBlock, within
from edgekit.prune.recurrent import recurrent
from edgekit.prune.rules import RULES
from edgekit.prune.walk import Walk, alive, shape_of

KINDS = (nn.LSTM, nn.GRU, nn.RNN)
_WEIGHT = re.compile(r"(.*\b(?:weight|bias)_(?:ih|hh|hr)_l)(\d+)((?:_reverse)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentLayer:
    """A layer of an `nn.LSTM`, `nn.GRU` or `nn.RNN`, both of its directions; without it its input goes on.

    Args:
        name: of the module and the layer, unique among the blocks.
        module: the module's name.
        layer: its number in the module; 0 only where the module has no other, and goes whole.
    """

    name: str
    module: str
    layer: int

    def has(self, module: str) -> bool:
        """Whether the module of that name goes with the layer: else the module's others have the same units."""
        return self.layer == 0 and within(module, self.module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """What was found in a graph.

    Args:
        removable: the layers that may go, in the order of the graph.
        calls: for each module that may go whole the nodes that call it.
    """

    removable: tuple[RecurrentLayer, ...]
    calls: Mapping[str, Sequence[Node]]

    def tied(self, walk: Walk) -> tuple[RecurrentLayer, ...]:
        """Those that may go once what a module reads and what it gives have the same units, which this sees to.

        Where some of either have to stay, and those of the other need not, the widths are worth more than the layer.
        """
        kept = []
        for layer in self.removable:
            pairs = [_ends(walk, node) for node in self.calls.get(layer.module, ())] if layer.layer == 0 else []
            if all(pair is not None and walk.atoms.stay_alike(*pair) for pair in pairs):
                kept.append(layer)
                for pair in pairs:
                    assert pair is not None
                    walk.atoms.join(*pair)
        return tuple(kept)


def _ends(walk: Walk, node: Node) -> tuple[np.ndarray, np.ndarray] | None:
    """What a call reads and what it gives."""
    assert isinstance(node.args[0], Node)
    reads, gives = walk.values[node.args[0]], walk.values[node]
    into, out = reads[-1], gives[0][-1] if isinstance(gives, list) else None
    return (into, out) if isinstance(into, np.ndarray) and isinstance(out, np.ndarray) else None


def find_layers(program: ExportedProgram, model: nn.Module, residual: Sequence[ResidualBlock]) -> Layers:
    """Every layer that may go; a module that ends a residual branch goes with that, and not by itself."""
    targets = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs}
    modules, living = dict(model.named_modules()), set(alive(program.graph.nodes))
    calls: dict[str, list[Node]] = {}
    for node in program.graph.nodes:
        if RULES.get(node.target) is recurrent:
            calls.setdefault(targets.get(node.args[2][0].name, "").rpartition(".")[0], []).append(node)
    found, whole = list[RecurrentLayer](), dict[str, list[Node]]()
    for name, nodes in calls.items():
        module = modules.get(name)
        # A class of the user's own may do something else with its layers.
        if not isinstance(module, nn.RNNBase) or type(module) not in KINDS:
            continue
        for layer in range(1, module.num_layers):
            label = f"{name}.layer{layer}".removeprefix(".")
            found.append(RecurrentLayer(name=label, module=name, layer=layer))
        is_alone = module.num_layers == 1 and not any(block.has(name) for block in residual)
        if is_alone and all(_is_stacked(node, living) for node in nodes):
            found.append(RecurrentLayer(name=name, module=name, layer=0))
            whole[name] = nodes
    return Layers(removable=tuple(found), calls=whole)


def _is_stacked(node: Node, living: Collection[Node]) -> bool:
    """Whether a call gives nothing but a sequence, of the shape of the one it reads, which another call has made."""
    outputs = [user for user in node.users if user in living]
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in outputs):
        return False
    source: Any = node.args[0]
    if not outputs or shape_of(outputs[0]) != shape_of(source):
        return False
    while isinstance(source, Node) and source.op == "call_function":
        if source.target is operator.getitem:
            return RULES.get(source.args[0].target) is recurrent  # type: ignore[union-attr] # an operator's output
        # Dropout and normalizations between the two.
        shape = shape_of(source)
        sources = [each for each in source.all_input_nodes if each.op == "call_function"]
        source = next((each for each in sources if _is_of(each, shape)), None)
    return False


def _is_of(node: Node, shape: tuple[int, ...]) -> bool:
    return isinstance(node.meta.get("val"), Tensor) and shape_of(node) == shape


class PassingSequence(nn.Module):
    """What is left of a recurrent module that goes whole: its sequence goes on, and nothing has been made of it.

    It says as much of itself as code asks a recurrent module for: to make a first state, or before it is called.
    """

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers = module.input_size, module.hidden_size, module.num_layers
        self.batch_first, self.bidirectional = module.batch_first, module.bidirectional
        self.states = 2 if isinstance(module, nn.LSTM) else 1

    def forward(self, x: Any, start: Any = None) -> tuple[Any, Any]:
        """The sequence, and no last states."""
        del start
        return x, (None, None) if self.states == 2 else None

    def flatten_parameters(self) -> None:
        """There are none."""


def drop_layers(module: nn.RNNBase, gone: Collection[int]) -> None:
    """Take layers out of a module, in place; those behind them move up."""
    # PyTorch keeps the names of its weights in lists beside them, and has no public way to change those.
    directions = 2 if module.bidirectional else 1
    names = module._all_weights  # noqa: SLF001
    kept = [layer for layer in range(module.num_layers) if layer not in gone]
    stay = [name for layer in kept for group in names[layer * directions : (layer + 1) * directions] for name in group]
    weights = [getattr(module, name) for name in stay]
    for name in module._flat_weights_names:  # noqa: SLF001
        delattr(module, name)
    module.num_layers = len(kept)
    module._all_weights = names[: len(kept) * directions]  # noqa: SLF001
    module._flat_weights_names = [name for group in module._all_weights for name in group]  # noqa: SLF001
    module._parameters.update(zip(module._flat_weights_names, weights, strict=True))  # noqa: SLF001
    module._init_flat_weights()  # noqa: SLF001


def skip_layers(module: nn.RNNBase, gone: Collection[int]) -> None:
    """Let a module answer as if some of its layers passed their input on: the reference of the proof.

    Each layer that stays is a module of one layer with its weights, so that this shares nothing with `drop_layers`.
    """
    directions = 2 if module.bidirectional else 1
    kept = [layer for layer in range(module.num_layers) if layer not in gone]

    def forward(x: Any, start: Any = None) -> tuple[Any, Any]:
        ends = []
        for layer in kept:
            rows = slice(layer * directions, (layer + 1) * directions)
            own = start if start is None else _each(start, lambda state, rows=rows: state[rows].contiguous())
            x, end = _alone(module, layer)(x, own)
            ends.append(end)
        if not ends:
            return x, (None, None) if isinstance(module, nn.LSTM) else None
        if isinstance(ends[0], Tensor):
            return x, torch.cat(ends)
        return x, tuple(torch.cat(parts) for parts in zip(*ends, strict=True))

    module.forward = forward


def _each(states: Any, act: Any) -> Any:
    return act(states) if isinstance(states, Tensor) else tuple(act(state) for state in states)


def _alone(module: nn.RNNBase, layer: int) -> nn.RNNBase:
    weights = {
        f"{parts[1]}0{parts[3]}": value
        for name, value in module.named_parameters()
        if (parts := _WEIGHT.fullmatch(name)) and int(parts[2]) == layer
    }
    options: dict[str, Any] = {"proj_size": module.proj_size} if module.proj_size else {}
    if isinstance(module, nn.RNN):
        options["nonlinearity"] = module.mode.partition("_")[2].lower()
    kind: Any = type(module)
    single: nn.RNNBase = kind(
        weights["weight_ih_l0"].shape[1],
        module.hidden_size,
        bias=module.bias,
        batch_first=module.batch_first,
        bidirectional=module.bidirectional,
        **options,
    )
    for name, value in weights.items():
        setattr(single, name, nn.Parameter(value.detach()))
    return single.eval()


def original_name(name: str, gone: Mapping[str, Collection[int]]) -> str:
    """The name that a tensor of a pruned model has in the original, given the layers that each module lost.

    >>> original_name("rnn.weight_hh_l1_reverse", {"rnn": [1]})
    'rnn.weight_hh_l2_reverse'
    """
    parts = _WEIGHT.fullmatch(name)
    lost = gone.get(name.rpartition(".")[0], ())
    if parts is None or not lost:
        return name
    kept = [layer for layer in range(int(parts[2]) + len(lost) + 1) if layer not in lost]
    return f"{parts[1]}{kept[int(parts[2])]}{parts[3]}"
