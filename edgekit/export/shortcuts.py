"""What `torch.onnx.export` does for each network and need not do: kept for as long as a process lives, or left out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch.export import ExportedProgram

from edgekit.export.lowering import is_lowered

try:
    from torch.onnx._internal.exporter import _decomp, _fx_passes, _registration
except ImportError:  # Another version of PyTorch: nothing is kept.
    _decomp = _fx_passes = _registration = None  # type: ignore[assignment]

TABLE, DECOMPOSE, REGISTRY = "create_onnx_friendly_decomposition_table", "decompose_with_registry", "from_torchlib"
KNOWN = "get_onnx_implemented_overloads"


@contextmanager
def shortcuts() -> Iterator[None]:
    """Within this, exports take half their time, and give the same graphs.

    The tables of operators' translations and of what has to be decomposed are made but once; and a program of which
    nothing has to be decomposed is not traced once more for that. Where PyTorch keeps these things elsewhere than 2.13
    does, all is as always.
    """
    places = ((getattr(_registration, "ONNXRegistry", None), REGISTRY), (_decomp, TABLE), (_fx_passes, DECOMPOSE))
    if not all(hasattr(owner, name) for owner, name in (*places, (_decomp, KNOWN))):
        yield
        return
    before = [(owner, name, vars(owner)[name]) for owner, name in places]
    make_registry, make_table, decompose = (getattr(owner, name) for owner, name in places)

    def registry_of(**how: Any) -> Any:
        return _registry_of(make_registry, **how)

    def table_of(known: set[Any]) -> dict[Any, Any]:
        return dict(_table_of(make_table, frozenset(known)))

    def decomposed(program: ExportedProgram, registry: Any) -> ExportedProgram:
        known = set(getattr(_decomp, KNOWN)(registry))
        return program if is_lowered(program, known) else decompose(program, registry)

    for (owner, name), ours in zip(places, (staticmethod(registry_of), table_of, decomposed), strict=True):
        setattr(owner, name, ours)
    try:
        yield
    finally:
        for owner, name, theirs in before:
            setattr(owner, name, theirs)


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
