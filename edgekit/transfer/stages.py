"""A network in stages, from its input to its head."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from edgekit.distill import traced
from edgekit.transfer.head import Head
from edgekit.workload import Batch

STAGES_AT_MOST = 5
SPLIT_FROM = 0.5
"""A module with more than this share of the body's parameters is looked into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Modules that are trained together, and all the parameters in them.

    Args:
        name: its modules.
        parameters: by name in the network.
        values: numbers in them.
    """

    name: str
    parameters: tuple[str, ...]
    values: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "parameters": list(self.parameters)}


def stages_of(model: nn.Module, example: Batch, head: Head) -> tuple[Stage, ...]:
    """The body of a network in at most five stages, in the order in which they are called; the head is in none.

    Read off the module tree: a module that has more than half of the parameters is taken as what is below it; layers
    without children join their neighbours, so that a stem and its normalization are one stage. Parameters that belong
    to no module below the network itself (as a class token) are in the first stage.

    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.ReLU()), nn.Linear(8, 3))
    >>> example = Batch((__import__("torch").ones(2, 4),), {}, None)
    >>> [stage.name for stage in stages_of(net, example, Head(name="2", width=8, outputs=3, last=True))]
    ['0', '1']
    """
    twin = copy.deepcopy(model).eval()
    began: dict[str, int] = {}
    for call in traced(twin, example)[0]:
        # A container may not be called itself, as a ModuleList is not.
        parts = call.name.split(".")
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            began[name] = min(began.get(name, call.began), call.began)
    units = _units(twin, head.name)
    units.sort(key=lambda name: began.get(name, 0))
    grouped = _joined(twin, units)
    if len(grouped) > STAGES_AT_MOST:
        parts_of = np.array_split(np.arange(len(grouped)), STAGES_AT_MOST)
        grouped = [[name for index in part for name in grouped[index]] for part in parts_of]
    owned = [[p for p in dict(twin.named_parameters()) if _owner(p, group)] for group in grouped]
    placed = {name for names in owned for name in names}
    loose = [p for p in dict(twin.named_parameters()) if p not in placed and not _below(p, head.name)]
    if loose and not grouped:
        grouped, owned = [["(network)"]], [[]]
    if loose:
        owned[0] = [*loose, *owned[0]]
    sizes = {name: value.numel() for name, value in twin.named_parameters()}
    return tuple(
        Stage(name=_title(group), parameters=tuple(names), values=sum(sizes[name] for name in names))
        for group, names in zip(grouped, owned, strict=True)
    )


def rates_of(stages: Sequence[Stage], decay: float) -> dict[str, float]:
    """Factors on the learning rate by parameter: `decay` for the last stage, its square for the one before, and so on.

    J. Howard and S. Ruder, *Universal Language Model Fine-tuning* (2018), section 3.2, discriminative fine-tuning.

    >>> rates_of([Stage(name="a", parameters=("a.w",), values=1), Stage(name="b", parameters=("b.w",), values=1)], 0.5)
    {'a.w': 0.25, 'b.w': 0.5}
    """
    return {name: decay ** (len(stages) - index) for index, stage in enumerate(stages) for name in stage.parameters}


def _units(model: nn.Module, head: str) -> list[str]:
    """Modules that share the body's parameters among them, none below another, none holding the head."""
    sizes = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules() if name}
    body = max(1, sum(p.numel() for name, p in model.named_parameters() if not _below(name, head)))

    def children(name: str) -> list[str]:
        parent = model.get_submodule(name) if name else model
        return [
            f"{name}.{each}".lstrip(".")
            for each, module in parent.named_children()
            if next(module.parameters(), None) is not None
        ]

    found: list[str] = []
    queue = children("")
    while queue:
        name = queue.pop(0)
        if name == head:
            continue
        below = children(name)
        own = next(model.get_submodule(name).parameters(recurse=False), None) is not None
        large = sizes[name] > SPLIT_FROM * body and not own
        if below and (_below(head, name) or (large and (len(below) > 1 or children(below[0])))):
            queue = [*below, *queue]
        else:
            found.append(name)
    return found


def _joined(model: nn.Module, units: Sequence[str]) -> list[list[str]]:
    """Layers without children together with the layers right before them; blocks by themselves."""
    grouped: list[list[str]] = []
    bare_before = False
    for name in units:
        bare = next(model.get_submodule(name).children(), None) is None
        small = bare and not isinstance(model.get_submodule(name), nn.Linear | nn.RNNBase)
        if grouped and small and (bare_before or _is_norm(model.get_submodule(name))):
            grouped[-1].append(name)
        else:
            grouped.append([name])
        bare_before = small
    return grouped


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _owner(parameter: str, modules: Sequence[str]) -> bool:
    return any(_below(parameter, name) for name in modules)


def _below(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _title(group: Sequence[str]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} … {group[-1]}"
