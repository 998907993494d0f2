"""Residual blocks that may go, and what stands in their place."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualBlock:
    """A branch that is added to a shortcut.

    Args:
        name: what its modules have in common in their names, unique among the blocks.
        last: the module whose parameters make the branch's output.
        modules: the other modules of the branch, which give way to nothing.
        shape: the output of what gives way to zeros, without its leading dimensions.
        leading: how many of the output's dimensions are the input's: one (samples) or more (positions).
        whole: the module around `last` that gives way to zeros, such as an attention; `last` itself without it.
        further: how many further outputs `whole` returns, which nobody reads.
    """

    name: str
    last: str
    modules: tuple[str, ...]
    shape: tuple[int, ...]
    leading: int = 1
    whole: str = ""
    further: int = 0

    @property
    def ending(self) -> str:
        """The module that gives way to zeros."""
        return self.whole or self.last

    def has(self, module: str) -> bool:
        """Whether the module of that name goes with the block."""
        return any(within(module, gone) for gone in (self.ending, *self.modules))


def within(module: str, outer: str) -> bool:
    """Whether a module is another or a part of it; every module is within the model, whose name is empty.

    >>> within("a.b", "a"), within("a.b", "a.b"), within("ab", "a"), within("a", "")
    (True, True, False, True)
    """
    return not outer or f"{module}.".startswith(f"{outer}.")


class Passing(nn.Identity):
    """What is left of a module within a removed branch: its first input, whatever else comes in."""

    def forward(self, input: Any, *_more: Any, **_named: Any) -> Any:  # noqa: A002 - nn.Identity calls it so
        """The first input."""
        return input


class ZeroBranch(nn.Module):
    """What is left of a removed branch: zeros of the first input's leading sizes and `shape`, whatever comes in.

    >>> import torch
    >>> ZeroBranch((2,))(torch.ones(3, 5)).tolist()
    [[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, shape: tuple[int, ...], *, leading: int = 1, further: int = 0) -> None:
        super().__init__()
        self.shape, self.leading, self.further = tuple(shape), leading, further

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Zeros of the first tensor's leading sizes, dtype and device; then as many None as there were outputs more."""
        x = next(leaf for leaf in pytree.tree_leaves((inputs, named)) if isinstance(leaf, Tensor))
        zeros = x.new_zeros((*x.shape[: self.leading], *self.shape))
        return (zeros, *[None] * self.further) if self.further else zeros

    def extra_repr(self) -> str:
        """The shape, for `print(model)`."""
        return f"shape={self.shape}" + (f", leading={self.leading}" if self.leading > 1 else "")


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Keep encoder layers of torch.nn from calling one kernel instead of their modules, as they may in evaluation.

    With a mask of padding that kernel also answers zero where the layers themselves do not.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def remove(model: nn.Module, block: ResidualBlock, shape: tuple[int, ...]) -> None:
    """Put zeros of `shape` in the place of a block's branch, in place."""
    old = model.get_submodule(block.ending)
    for name in block.modules:
        model.set_submodule(name, Passing())
    zeros: Any = ZeroBranch(shape, leading=block.leading, further=block.further)
    if isinstance(old, nn.MultiheadAttention):
        # A layer of torch.nn asks its attention for these before it calls it.
        zeros.batch_first, zeros.in_proj_bias = old.batch_first, None
    model.set_submodule(block.ending, zeros)
    unfuse(model, (block.ending, *block.modules))


def unfuse(model: nn.Module, changed: Collection[str]) -> None:
    """Let encoder layers of torch.nn around what has changed call their modules from now on, in place.

    In evaluation they would hand the tensors of all of them, as they were, to one kernel.
    """
    for name, module in model.named_modules():
        if any(within(each, name) for each in changed):
            if isinstance(module, nn.TransformerEncoderLayer):
                module.activation_relu_or_gelu = 0
            elif isinstance(module, nn.TransformerEncoder):
                module.use_nested_tensor = False
