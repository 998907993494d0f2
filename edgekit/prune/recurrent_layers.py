"""Layers of a recurrent module that may go: each but the first reads what it gives the width of."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgekit.prune.recurrent import recurrent
from edgekit.prune.rules import RULES

KINDS = (nn.LSTM, nn.GRU, nn.RNN)
_WEIGHT = re.compile(r"(.*\b(?:weight|bias)_(?:ih|hh|hr)_l)(\d+)((?:_reverse)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentLayer:
    """A layer of an `nn.LSTM`, `nn.GRU` or `nn.RNN`, both of its directions; without it its input goes on.

    Args:
        name: of the module and the layer, unique among the blocks.
        module: the module's name.
        layer: its number in the module, which is not 0.
    """

    name: str
    module: str
    layer: int

    def has(self, module: str) -> bool:
        """Whether the module of that name goes with the layer: none does, the others have the same units."""
        del module
        return False


def find_layers(program: ExportedProgram, model: nn.Module) -> tuple[RecurrentLayer, ...]:
    """Every layer that may go, in the order of the graph."""
    targets = {spec.arg.name: str(spec.target) for spec in program.graph_signature.input_specs}
    modules = dict(model.named_modules())
    found: dict[str, RecurrentLayer] = {}
    for node in program.graph.nodes:
        if RULES.get(node.target) is not recurrent:
            continue
        name = targets.get(node.args[2][0].name, "").rpartition(".")[0]
        module = modules.get(name)
        # A class of the user's own may do something else with its layers.
        if isinstance(module, nn.RNNBase) and type(module) in KINDS:
            for layer in range(1, module.num_layers):
                label = f"{name}.layer{layer}".removeprefix(".")
                found[label] = RecurrentLayer(name=label, module=name, layer=layer)
    return tuple(found.values())


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
