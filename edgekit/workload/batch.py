"""One batch as the model takes it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edgekit.data import TARGET_KEYS
from edgekit.errors import DataError


@dataclass(frozen=True, slots=True)
class Batch:
    """Arguments for one call of a model, and what it should answer.

    Args:
        args: positional arguments: tensors, or nested tuples, lists, dicts of tensors; the first axis counts samples.
        kwargs: keyword arguments, likewise.
        target: what the model should answer, or None where the data carry no labels.

    >>> batch = Batch((torch.ones(4, 3),), {}, torch.zeros(4))
    >>> len(batch), batch.call(torch.nn.Linear(3, 2)).shape
    (4, torch.Size([4, 2]))
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Any | None

    def __len__(self) -> int:
        leaves = self.leaves()
        return len(leaves[0]) if leaves else 0

    def call(self, model: Callable[..., Any]) -> Any:
        """What `model` returns for this batch."""
        return model(*self.args, **self.kwargs)

    def leaves(self) -> list[Tensor]:
        """The input tensors in the order of torch's pytree over (args, kwargs), which is the order of ONNX inputs."""
        return [leaf for leaf in pytree.tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    def to(
        self,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> Batch:
        """This batch on another device, its floating-point inputs in `dtype`, its 4-D inputs in `memory_format`.

        The target only changes its device.
        """

        def moved(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.to(
                device=device,
                dtype=dtype if value.is_floating_point() else None,
                memory_format=memory_format if memory_format is not None and value.ndim == 4 else torch.preserve_format,
            )

        def placed(value: Any) -> Any:
            return value.to(device=device) if isinstance(value, Tensor) else value

        args, kwargs = pytree.tree_map(moved, (self.args, self.kwargs))
        return Batch(args, kwargs, pytree.tree_map(placed, self.target))


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model's `forward` can be called with."""

    positional: tuple[str, ...]
    required: int
    spreads: bool
    keywords: frozenset[str]
    any_keyword: bool

    @classmethod
    def of(cls, model: Callable[..., Any]) -> Signature:
        """Read it off `model.forward`, or off `model` itself where that is a function."""
        parameters = inspect.signature(getattr(model, "forward", model)).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        return cls(
            positional=tuple(p.name for p in positional),
            required=sum(p.default is p.empty for p in positional),
            spreads=any(p.kind == p.VAR_POSITIONAL for p in parameters),
            keywords=frozenset(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)),
            any_keyword=any(p.kind == p.VAR_KEYWORD for p in parameters),
        )

    def takes(self, count: int) -> bool:
        """Whether `count` positional arguments fit."""
        return count >= self.required and (self.spreads or count <= len(self.positional))


def as_batch(item: Any, model: Callable[..., Any] | Signature) -> Batch:
    """Turn what a data loader yields into a `Batch`; the model's signature decides how inputs are passed.

    Takes `(x, y)`, `((x1, x2), y)`, `({...}, y)`, `(x1, x2, ..., y)`, `{"...": ..., "labels": ...}` and a bare `x`. A
    tuple or dict of inputs is spread over the arguments where `forward` takes as many, else passed as one argument. A
    tuple that `forward` can only take whole (`forward(a, b)` and an item of two) has no target.

    Args:
        item: one collated batch.
        model: the model, or its `Signature` when many batches are made.

    Raises:
        DataError: the item cannot be passed to the model.

    >>> pair = (torch.ones(2, 3), torch.zeros(2))
    >>> as_batch(pair, torch.nn.Linear(3, 1)).target
    tensor([0., 0.])
    >>> as_batch(pair, torch.nn.Bilinear(3, 3, 1)).target is None
    True
    """
    signature = model if isinstance(model, Signature) else Signature.of(model)
    if isinstance(item, Batch):
        return item
    inputs, target = _divide(item, signature)
    if isinstance(inputs, Mapping):
        return _pass_mapping(dict(inputs), target, signature)
    if isinstance(inputs, tuple | list):
        return _pass_sequence(tuple(inputs), target, signature)
    return Batch((inputs,), {}, target)


def _divide(item: Any, signature: Signature) -> tuple[Any, Any]:
    """The inputs and the target in an item."""
    if isinstance(item, Tensor):
        return item, None
    if isinstance(item, Mapping):
        key = next((key for key in TARGET_KEYS if key in item and len(item) > 1), None)
        return {name: value for name, value in item.items() if name != key}, None if key is None else item[key]
    if not isinstance(item, tuple | list) or not item:
        raise DataError(
            f"an item of the data is a {type(item).__name__}",
            where="the dataset",
            rule="(x, y), ((x1, x2), y), ({...}, y), (x1, x2, ..., y), {'...': ..., 'label': ...} or x",
            way_out="let __getitem__ return one of these",
        )
    if len(item) == 1:
        return item[0], None
    if signature.required >= len(item) and isinstance(item[0], Tensor):
        return tuple(item), None
    *inputs, target = item
    return (inputs[0] if len(inputs) == 1 else tuple(inputs)), target


def _pass_mapping(inputs: dict[str, Any], target: Any, signature: Signature) -> Batch:
    if signature.any_keyword or set(inputs) <= signature.keywords:
        # In the order of the signature: torch.export names the inputs in that order, whatever the caller's.
        order = {name: index for index, name in enumerate(signature.positional)}
        names = sorted(inputs, key=lambda name: order.get(name, len(order)))
        missing = [name for name in signature.positional[: signature.required] if name not in inputs]
        if not missing:
            return Batch((), {name: inputs[name] for name in names}, target)
    if signature.takes(1):
        return Batch((inputs,), {}, target)
    raise DataError(
        f"an item of the data has the inputs {sorted(inputs)}",
        where="the dataset",
        rule=f"forward takes {', '.join(signature.positional) or 'no arguments'}",
        way_out="name the keys like forward's arguments",
    )


def _pass_sequence(inputs: tuple[Any, ...], target: Any, signature: Signature) -> Batch:
    if len(inputs) > 1 and signature.takes(1) and not signature.takes(len(inputs)):
        return Batch((inputs,), {}, target)
    if signature.takes(len(inputs)):
        return Batch(inputs, {}, target)
    raise DataError(
        f"an item of the data has {len(inputs)} inputs",
        where="the dataset",
        rule=f"forward takes {', '.join(signature.positional) or 'no arguments'}",
        way_out="let __getitem__ return as many inputs as forward takes, then the target",
    )
