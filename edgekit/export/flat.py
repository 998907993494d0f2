"""A model as a function of a flat row of tensors: what both exporters and ONNX Runtime take."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit.errors import ExportError
from edgekit.tasks import outputs_of
from edgekit.workload import Batch

PREFIX = "model"
"""The attribute under which `Flat` holds the model, hence the first part of every name an exporter gives."""


class Flat(nn.Module):
    """Calls `model` with nested arguments made of flat tensors, and flattens what it returns.

    Arguments that are no tensors (numbers, flags, None) are kept as the example has them.
    """

    def __init__(self, model: nn.Module, example: Batch) -> None:
        super().__init__()
        self.model = model
        self._leaves, self._tree = pytree.tree_flatten((example.args, example.kwargs))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The model's outputs, in their own order."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._tree)
        return outputs_of(self.model(*args, **kwargs))


def name_inputs(model: nn.Module, example: Batch) -> tuple[str, ...]:
    """Names of the input tensors, from forward's parameters and the keys of dicts.

    A key stands alone where it is unique: `forward(features)` called with `{"x": ..., "mask": ...}` has the inputs `x`
    and `mask`. Elements of a tuple are numbered: `states_0`, `states_1`.

    >>> import torch
    >>> name_inputs(nn.Linear(2, 2), Batch((torch.ones(1, 2),), {}, None))
    ('input',)
    """
    parameters = list(inspect.signature(model.forward).parameters.values())
    tops: list[str] = []
    for index in range(len(example.args)):
        parameter = parameters[min(index, len(parameters) - 1)] if parameters else None
        if parameter is None or (parameter.kind == parameter.VAR_POSITIONAL and len(example.args) > 1):
            tops.append(f"input_{index}")
        else:
            tops.append(parameter.name)
    paths = [path for top, value in zip(tops, example.args, strict=True) for path in _paths(value, (top,))]
    paths += [path for key, value in example.kwargs.items() for path in _paths(value, (key,))]
    return _shortened(paths)


def name_outputs(raw: Any) -> tuple[str, ...]:
    """Names of the output tensors, from the keys of a dict or the fields of a named tuple, else `output`, `output_0`...

    >>> import torch
    >>> name_outputs({"logits": torch.ones(1), "states": (torch.ones(1), torch.ones(1))})
    ('logits', 'states_0', 'states_1')
    """
    return _shortened(list(_paths(raw, ("output",))))


def checked_names(given: Sequence[str], count: int, side: str, *, but: Sequence[str] = ()) -> tuple[str, ...]:
    """The names, or an `ExportError` if there are not `count` different ones.

    A name that is in `but` already (a state that goes in and comes out) gets `_out` appended: ONNX has one name space.
    """
    if len(given) != count or len(set(given)) != len(given) or not all(given):
        raise ExportError(
            f"got {list(given)}",
            where=f"{side}_names",
            rule=f"{count} different names, one for each {side} tensor",
            way_out=f"leave {side}_names out to take them from the model",
        )
    return tuple(f"{name}_out" if name in but else name for name in given)


def _paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """One path of names per tensor in `value`."""
    if isinstance(value, Tensor):
        yield path
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _paths(inner, (*path, str(key)))
    elif isinstance(value, tuple | list):
        fields = getattr(value, "_fields", None)
        for index, inner in enumerate(value):
            yield from _paths(inner, (*path, fields[index] if fields else str(index)))


def _shortened(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    """Drop leading parts as long as the names stay unique and start with no digit."""

    def name(path: tuple[str, ...], parts: int) -> str:
        return "_".join(path[-parts:])

    depth = max((len(path) for path in paths), default=1)
    for parts in range(1, depth + 1):
        names = [name(path, parts) for path in paths]
        names = [
            name(path, parts + 1) if short[:1].isdigit() else short for path, short in zip(paths, names, strict=True)
        ]
        if len(set(names)) == len(names) and not any(short[:1].isdigit() for short in names):
            return tuple(names)
    return tuple(name(path, depth) for path in paths)
