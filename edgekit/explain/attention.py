"""Where a Transformer attends, head by head, in the user's own module.

Attention is found while the module runs: in `nn.MultiheadAttention`, in `scaled_dot_product_attention`, and where
hand-written code takes the softmax of a product of two activations. Attention rollout follows S. Abnar and W. Zuidema,
*Quantifying Attention Flow in Transformers* (2020), section 3.1: heads averaged, half of each layer for the residual
connection, layers multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgekit import stats
from edgekit.explain.drift import spearman
from edgekit.progress import Progress, Step, silent
from edgekit.stats import Estimate
from edgekit.workload import Batch

PRODUCTS = {"matmul": 0, "__matmul__": 0, "bmm": 0, "baddbmm": 1, "einsum": 1}
"""Functions that multiply queries by keys, and where their two operands begin."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionMap:
    """The attention of one call: float64 [n, heads, queries, keys], each row adding up to 1; `name` of its module."""

    name: str
    weights: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attention:
    """Attention of the original module, and of the compressed one where it is given.

    Args:
        maps: for each sample, by module (`original`, `compressed`), the calls in order.
        rollouts: for each sample, by module, float64 [tokens, tokens]; a module without one is left out.
        rollout_correlation: mean rank correlation of the modules' rollouts; None without two.
        layer_correlations: the same for the mean over heads of each layer that both have.
        notes: what does not apply, and why.
    """

    maps: Sequence[Mapping[str, Sequence[AttentionMap]]]
    rollouts: Sequence[Mapping[str, np.ndarray]]
    rollout_correlation: Estimate | None
    layer_correlations: Mapping[str, Estimate]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form without the maps."""
        return {
            "samples": len(self.maps),
            "layers": {
                module: [
                    {"name": each.name, "heads": each.weights.shape[1], "queries_keys": list(each.weights.shape[2:])}
                    for each in maps
                ]
                for module, maps in self.maps[0].items()
            },
            "rollout_correlation": None if self.rollout_correlation is None else self.rollout_correlation.to_dict(),
            "layer_correlations": {name: each.to_dict() for name, each in self.layer_correlations.items()},
            "notes": list(self.notes),
        }


def attention(
    modules: Mapping[str, nn.Module], batches: Sequence[Batch], *, seed: int = 0, progress: Progress = silent
) -> Attention | None:
    """Attention maps and rollout of the modules for single samples; None where the original attends to nothing.

    Args:
        modules: `original`, and `compressed` where there is one; in evaluation mode.
        batches: one sample each.
        seed: of the bootstrap.
        progress: told after each sample.
    """
    found: list[dict[str, list[AttentionMap]]] = []
    for done, batch in enumerate(batches, 1):
        found.append({name: attention_maps(module, batch) for name, module in modules.items()})
        if not found[0]["original"]:
            return None
        progress(Step("attention", done, len(batches)))
    rolled = [{name: rollout(maps) for name, maps in each.items()} for each in found]
    rollouts = [{name: value[0] for name, value in each.items() if value is not None} for each in rolled]
    notes = [
        f"no rollout of the {name} network: its layers do not attend among one set of tokens"
        for name in modules
        if name not in rollouts[0]
    ]
    return Attention(
        maps=found,
        rollouts=rollouts,
        rollout_correlation=_mean(
            [(each["original"], each["compressed"]) for each in rollouts if len(each) == 2], seed
        ),
        layer_correlations=_by_layer(found, seed) if "compressed" in modules else {},
        notes=notes,
    )


def attention_maps(model: nn.Module, batch: Batch) -> list[AttentionMap]:
    """All attention of one call of `model`, in order."""
    running: list[str] = []

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: running.append(name)

    def leave(*_: Any) -> None:
        running.pop()

    recorder = _Recorder(running, len(batch))
    with ExitStack() as stack, torch.no_grad():
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(enter(name)).remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        with recorder:
            batch.call(model)
    return recorder.found


def rollout(maps: Sequence[AttentionMap]) -> np.ndarray | None:
    """Attention rollout [n, tokens, tokens]: row i says what the last layer's token i is made of.

    None where there is no attention, or layers do not attend among one and the same number of tokens.

    >>> half = AttentionMap(name="a", weights=np.full((1, 2, 2, 2), 0.5))
    >>> rollout([half])[0]
    array([[0.75, 0.25],
           [0.25, 0.75]])
    """
    shapes = {(len(each.weights), *each.weights.shape[2:]) for each in maps}
    if len(shapes) != 1:
        return None
    n, queries, keys = shapes.pop()
    if queries != keys:
        return None
    total = np.broadcast_to(np.eye(keys), (n, keys, keys))
    for each in maps:
        total = (0.5 * each.weights.mean(axis=1) + 0.5 * np.eye(keys)) @ total
    return total


class _Recorder(TorchFunctionMode):
    """Sees every torch function that a module calls, and keeps what is attention. Fast paths step aside for it."""

    def __init__(self, running: Sequence[str], samples: int) -> None:
        super().__init__()
        self.found: list[AttentionMap] = []
        self._running, self._samples = running, samples
        self._products: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "multi_head_attention_forward":
            return self._multi_head(func, args, kwargs)
        if name == "scaled_dot_product_attention":
            self._keep(_dot_product(*args, **kwargs))
        output = func(*args, **kwargs)
        if isinstance(output, Tensor):
            self._follow(name, args, kwargs, output)
        return output

    def _multi_head(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        output, weights = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
        self._keep(weights if weights.ndim == 4 else weights[None])
        if not kwargs.get("need_weights", True):
            return output, None
        return output, weights.mean(dim=-3) if kwargs.get("average_attn_weights", True) else weights

    def _follow(self, name: str, args: Any, kwargs: dict[str, Any], output: Tensor) -> None:
        """Remember what is a product of two activations, scaled, masked or reshaped, until its softmax is taken."""
        tensors = [each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)]
        if name in PRODUCTS:
            operands = _operands(name, args)
            if len(operands) == 2 and all(each.ndim >= 3 for each in operands):
                self._products[id(output)] = output
            return
        sources = [each for each in tensors if id(each) in self._products]
        if not sources:
            return
        if name == "softmax":
            dim = args[1] if len(args) > 1 else kwargs.get("dim")
            if dim in {-1, output.ndim - 1}:
                self._keep(output)
        elif any(output.shape[-2:] == each.shape[-2:] and output.numel() == each.numel() for each in sources):
            # Kept alive, too: an id belongs to one tensor only for as long as that lives.
            self._products[id(output)] = output

    def _keep(self, weights: Tensor) -> None:
        *leading, queries, keys = weights.shape
        if math.prod(leading) % self._samples:
            return
        array = weights.detach().reshape(self._samples, -1, queries, keys).double().cpu().numpy()
        self.found.append(AttentionMap(name=self._running[-1] if self._running else "", weights=array))


def _operands(name: str, args: Any) -> list[Tensor]:
    given = args[PRODUCTS[name] :]
    flat = given[0] if given and isinstance(given[0], list | tuple) else given
    return [each for each in flat if isinstance(each, Tensor)]


def _dot_product(  # noqa: PLR0917 - torch's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,  # noqa: FBT001, FBT002 - likewise
    scale: float | None = None,
    enable_gqa: bool = False,  # noqa: FBT001, FBT002 - likewise
) -> Tensor:
    """The weights of `torch.nn.functional.scaled_dot_product_attention`, as its documentation defines them."""
    del value, dropout_p
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
    logits = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    return logits.softmax(-1)


def _by_layer(found: Sequence[Mapping[str, Sequence[AttentionMap]]], seed: int) -> dict[str, Estimate]:
    """Rank correlation of the mean over heads, for each layer (its first call) that both modules have."""
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for each in found:
        there = {maps.name: maps for maps in reversed(each["compressed"])}
        for name, maps in {maps.name: maps for maps in reversed(each["original"])}.items():
            if name in there and there[name].weights.shape[2:] == maps.weights.shape[2:]:
                pairs.setdefault(name, []).append((maps.weights.mean(axis=1), there[name].weights.mean(axis=1)))
    order = [maps.name for maps in found[0]["original"]]
    means = {name: _mean(pairs[name], seed) for name in dict.fromkeys(order) if name in pairs}
    return {name: each for name, each in means.items() if each is not None}


def _mean(pairs: Sequence[tuple[np.ndarray, np.ndarray]], seed: int) -> Estimate | None:
    alike = [(a, b) for a, b in pairs if a.shape == b.shape]
    return stats.mean(np.array([spearman(a, b) for a, b in alike]), seed=seed) if alike else None
