"""What `torch.onnx.export` makes anew for each network though it never changes: kept for as long as a process lives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

try:
    from torch.onnx._internal.exporter import _decomp, _registration
except ImportError:  # Another version of PyTorch: nothing is kept.
    _decomp = _registration = None  # type: ignore[assignment]


@contextmanager
def kept_tables() -> Iterator[None]:
    """Within this, the tables of operators' translations and of what has to be decomposed are made but once.

    They are a third of the time of an export. Where PyTorch keeps them elsewhere than 2.13 does, nothing is kept.
    """
    registry: Any = getattr(_registration, "ONNXRegistry", None)
    decompositions: Any = _decomp
    make_registry = getattr(registry, "from_torchlib", None)
    make_table = getattr(decompositions, "create_onnx_friendly_decomposition_table", None)
    if make_registry is None or make_table is None:
        yield
        return
    own = vars(registry)["from_torchlib"]

    def registry_of(**how: Any) -> Any:
        return _registry_of(make_registry, **how)

    def table_of(known: set[Any]) -> dict[Any, Any]:
        return dict(_table_of(make_table, frozenset(known)))

    registry.from_torchlib = staticmethod(registry_of)
    decompositions.create_onnx_friendly_decomposition_table = table_of
    try:
        yield
    finally:
        registry.from_torchlib = own
        decompositions.create_onnx_friendly_decomposition_table = make_table


def _registry_of(make: Callable[..., Any], **how: Any) -> Any:
    """A registry of its own for each export, which adds the translations that it is given."""
    first = _first_registry(make, **how)
    if not isinstance(getattr(first, "functions", None), dict):
        return make(**how)
    made = copy.copy(first)
    made.functions = {operator: list(found) for operator, found in first.functions.items()}
    return made


@cache
def _first_registry(make: Callable[..., Any], **how: Any) -> Any:
    return make(**how)


@cache
def _table_of(make: Callable[[frozenset[Any]], dict[Any, Any]], known: frozenset[Any]) -> dict[Any, Any]:
    return make(known)
