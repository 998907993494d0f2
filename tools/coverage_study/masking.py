"""The masked original of a pruned network, made by other means than the product's."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_MOMENTS = {
    *(torch.mean, torch.var, torch.std, torch.var_mean, torch.std_mean),
    *(Tensor.mean, Tensor.var, Tensor.std),
}


def masked(model: nn.Module, gone: Mapping[str, Mapping[int, Sequence[int]]]) -> nn.Module:
    """The original with zeros where something went, whose normalizations over channels count what is left.

    Args:
        model: left as it is.
        gone: for each parameter and buffer and each of its dimensions the indexes that went.
    """
    twin = copy.deepcopy(model)
    state = {**dict(twin.named_parameters()), **dict(twin.named_buffers())}
    with torch.no_grad():
        for name, axes in gone.items():
            for axis, indexes in axes.items():
                state[name].index_fill_(axis, torch.tensor(list(indexes), dtype=torch.int64), 0)
    return _Masked(twin, {name: module for name, module in twin.named_modules() if _has_scales(module)}, gone)


def _has_scales(module: nn.Module) -> bool:
    """Whether it may be a normalization over channels: it has one number for each of them, and nothing else."""
    if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
        return False
    sizes = {value.numel() for value in module.parameters()}
    return len(sizes) == 1 and not list(module.children()) and not list(module.buffers())


class _Masked(nn.Module):
    def __init__(
        self, model: nn.Module, norms: Mapping[str, nn.Module], gone: Mapping[str, Mapping[int, Sequence[int]]]
    ) -> None:
        super().__init__()
        self.model, self.kept = model, dict[str, Tensor]()
        for name, module in norms.items():
            axes = [each for value, _ in module.named_parameters() for each in gone.get(f"{name}.{value}", {}).values()]
            lost = {int(index) for each in axes for index in each}
            if lost:
                size = next(module.parameters()).numel()
                self.kept[name] = torch.tensor([index for index in range(size) if index not in lost])

    def forward(self, *args: Any, **named: Any) -> Any:
        # Only during the call, so that copies of this module watch modules of their own.
        with ExitStack() as stack:
            for name, kept in self.kept.items():
                stack.enter_context(_watched(self.model.get_submodule(name), kept))
            return self.model(*args, **named)


@contextmanager
def _watched(module: nn.Module, kept: Tensor) -> Iterator[None]:
    forward, size = module.forward, next(module.parameters()).numel()

    def counted(*args: Any, **named: Any) -> Any:
        with _Left(kept, size):
            return forward(*args, **named)

    module.forward = counted
    try:
        yield
    finally:
        del module.forward


class _Left(TorchFunctionMode):
    """Statistics over `size` channels are taken over those of them that are `kept`."""

    def __init__(self, kept: Tensor, size: int) -> None:
        super().__init__()
        self.kept, self.size = kept, size

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in {F.layer_norm, torch.layer_norm}:
            return self._normalized(*args[:1], *args[2:], axis=-1, **_but(named, "normalized_shape", "input"))
        if func in {F.rms_norm, torch.rms_norm}:
            return self._scaled(*args[:1], *args[2:], **_but(named, "normalized_shape", "input"))
        if func is F.group_norm:
            return self._normalized(*args[:1], *args[2:], axis=1, **_but(named, "num_groups", "input"))
        if func in _MOMENTS:
            value, dims = args[0], named.get("dim", args[1] if len(args) > 1 else None)
            dims = range(value.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
            axes = [axis for axis in dims if value.shape[axis] == self.size]
            if axes:
                args = (value.index_select(axes[-1], self.kept), *args[1:])
        return func(*args, **named)

    def _normalized(
        self, x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5, *_: Any, axis: int
    ) -> Tensor:
        some = x.index_select(axis, self.kept)
        over = list(range(1, x.ndim)) if axis == 1 else [-1]
        scores = (some - some.mean(over, keepdim=True)) / (some.var(over, unbiased=False, keepdim=True) + eps).sqrt()
        return self._spread(x, scores, weight, bias, axis)

    def _scaled(self, x: Tensor, weight: Tensor, eps: float | None = None) -> Tensor:
        some = x.index_select(-1, self.kept)
        least = torch.finfo(x.dtype).eps if eps is None else eps
        return self._spread(x, some / (some.square().mean(-1, keepdim=True) + least).sqrt(), weight, None, -1)

    def _spread(self, x: Tensor, scores: Tensor, weight: Tensor, bias: Tensor | None, axis: int) -> Tensor:
        shape = [-1 if index == axis % x.ndim else 1 for index in range(x.ndim)]
        everywhere = torch.zeros_like(x).index_copy(axis, self.kept, scores) * weight.reshape(shape)
        return everywhere if bias is None else everywhere + bias.reshape(shape)


def _but(named: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in named.items() if name not in names}
