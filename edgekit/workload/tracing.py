"""`torch.export` of recurrent networks, in the time that their layers ask for and not their time steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

RECURRENT = ("gru", "lstm", "rnn_tanh", "rnn_relu")


@contextmanager
def whole_layers() -> Iterator[None]:
    """Have tracers ask recurrent operators for the shapes of what they give, and no more.

    `torch.export` keeps these operators whole. To learn the shapes that they give it walks through their formulas, step
    by step and several times: two layers of GRU over 168 steps took a minute, and their number could not stay open.
    What a traced graph computes is the same; where PyTorch keeps such formulas elsewhere than 2.13 does, this does
    nothing. Within it no such operator can be taken to pieces: nothing would be left of it.

    >>> import warnings
    >>> net = torch.nn.GRU(3, 4, batch_first=True).eval()
    >>> with whole_layers(), warnings.catch_warnings(action="ignore"):
    ...     program = torch.export.export(net, (torch.ones(2, 500, 3),))
    >>> [str(node.target) for node in program.graph.nodes if "gru" in str(node.target)]
    ['aten.gru.input']
    """
    formulas: list[tuple[Any, dict[Any, Any], dict[Any, Any]]] = []
    for name in RECURRENT:
        operator = getattr(torch.ops.aten, name).input
        for table, keys in _tables(operator):
            kept = {key: table[key] for key in keys if key in table}
            formulas.append((operator, table, kept))
            table.update(dict.fromkeys(kept, _shapes_of_lstm if name == "lstm" else _shapes))
        _forget(operator)
    try:
        yield
    finally:
        for operator, table, kept in formulas:
            table.update(kept)
            _forget(operator)


def _tables(operator: Any) -> list[tuple[dict[Any, Any], tuple[Any, ...]]]:
    """Where PyTorch keeps an operator's formulas, and under which keys."""
    keys = torch._C.DispatchKey  # noqa: SLF001 - PyTorch has no public name for them
    own = getattr(operator, "py_kernels", {})
    return [(own, (keys.CompositeImplicitAutograd, keys.Autograd)), (decomposition_table, (operator,))]


def _forget(operator: Any) -> None:
    """Have the operator look for its kernels anew."""
    getattr(operator, "_dispatch_cache", {}).clear()


def _shapes(x: Tensor, start: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """The sequence, and the last state."""
    return _sequence(x, start, rest), torch.empty_like(start, memory_format=torch.contiguous_format)


def _shapes_of_lstm(x: Tensor, start: Sequence[Tensor], *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The sequence, and the last states."""
    states = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in start]
    return _sequence(x, start[0], rest), states[0], states[1]


def _sequence(x: Tensor, start: Tensor, rest: Sequence[Any]) -> Tensor:
    """[time, samples, directions * units], or with samples first as a view of that."""
    *_, bidirectional, batch_first = rest
    width = start.shape[-1] * (2 if bidirectional else 1)
    if batch_first:
        return x.new_empty((x.shape[1], x.shape[0], width)).transpose(0, 1)
    return x.new_empty((x.shape[0], x.shape[1], width))
