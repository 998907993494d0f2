"""The proof on every prune: the pruned model equals the original with the same channels masked."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from edgekit.errors import PruneError
from edgekit.prune.blocks import unfused_attention
from edgekit.prune.plan import PrunePlan
from edgekit.prune.surgery import masked
from edgekit.workload import Batch, outputs_of

TOLERANCE = 1e-9
"""Relative to the largest output, in float64; what is right is right to about 1e-15 a layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The largest difference found, relative to the largest output, over `inputs` inputs in float64."""

    max_relative_difference: float
    inputs: int

    def __str__(self) -> str:
        return (
            f"equals the masked original to {self.max_relative_difference:.1e} on {self.inputs} inputs (float64; "
            f"allowed {TOLERANCE:.0e})"
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


@torch.no_grad()
@unfused_attention()
def prove(model: nn.Module, pruned: nn.Module, plan: PrunePlan, example: Batch, *, noise: int = 2) -> Proof:
    """Compare the pruned model with the masked original on the example and, if all inputs are floats, on noise.

    Args:
        model: the original.
        pruned: what the plan made of it.
        plan: the plan.
        example: real inputs.
        noise: how many inputs to draw besides, from a normal distribution.

    Raises:
        PruneError: the pruned model does not run, or gives something else.
    """
    reference = masked(model, plan).double().eval()
    smaller = copy.deepcopy(pruned).double().eval()
    worst = 0.0
    inputs = _inputs(example, noise)
    for batch in inputs:
        try:
            with _Exact():
                want, have = (outputs_of(batch.call(each)) for each in (reference, smaller))
        except Exception as error:
            raise PruneError(
                f"the pruned model does not run: {type(error).__name__}: {error}",
                where=str(plan),
                rule="the model's code takes its sizes from its tensors",
                way_out="sizes are written as numbers in its forward; leave these channels",
            ) from error
        for wanted, found in zip(want, have, strict=True):
            if wanted.shape != found.shape:
                raise PruneError(
                    f"an output has shape {list(found.shape)}", where=str(plan), rule=f"{list(wanted.shape)} as before"
                )
            scale = float(wanted.abs().max()) or 1.0
            difference = float((wanted - found).abs().max()) / scale
            if not difference <= TOLERANCE:
                raise PruneError(
                    f"the pruned model differs from the masked original by {difference:.1e} of its largest output",
                    where=str(plan),
                    rule=f"at most {TOLERANCE:.0e} in float64",
                    way_out="leave these channels; and please report the model: the coupling analysis missed something",
                )
            worst = max(worst, difference)
    return Proof(max_relative_difference=worst, inputs=len(inputs))


class _Exact(TorchFunctionMode):
    """Leaves numbers in float64 where code asks for float32 in between, as norms and softmaxes of transformers do.

    Rounding would differ between the two models by more than what the proof allows.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.dtype == torch.float64:
            if func is Tensor.float:
                return first
            args = tuple(torch.float64 if each is torch.float32 else each for each in args)
            named = {name: torch.float64 if each is torch.float32 else each for name, each in named.items()}
        return func(*args, **named)


def _inputs(example: Batch, noise: int) -> list[Batch]:
    real = example.to(dtype=torch.float64)
    if not all(leaf.is_floating_point() for leaf in example.leaves()):
        return [real]
    generator = torch.Generator().manual_seed(0)

    def drawn(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)

    made = [pytree.tree_map(drawn, (example.args, example.kwargs)) for _ in range(noise)]
    return [real, *(Batch(args, kwargs, None) for args, kwargs in made)]
