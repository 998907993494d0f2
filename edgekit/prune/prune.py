"""The verbs: analyse a model, prune it with proof, keep it, and rebuild it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.errors import PruneError
from edgekit.prune.coupling import Coupling, couple
from edgekit.prune.plan import PrunePlan, make_plan
from edgekit.prune.proof import Proof, prove
from edgekit.prune.surgery import apply
from edgekit.store import write_atomic, write_json
from edgekit.workload import Batch

PLAN, WEIGHTS = "plan.json", "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A smaller model, the plan that made it, and the proof that nothing else changed."""

    model: nn.Module
    plan: PrunePlan
    proof: Proof


def analyse(model: nn.Module, example: Batch) -> Coupling:
    """What of `model` can be removed, and what cannot, and why.

    The graph of `torch.export` shows which channels hang together, index by index. It does not show whether the code
    takes its sizes from its tensors or has them as numbers. So groups and blocks are probed: applied and proved, once
    with a random half of the channels gone and once with a single one, on weights with noise added, so that a zero that
    training starts from hides nothing. What fails, alone or with those that passed before it, is frozen, with the
    reason.

    Args:
        model: left as it is.
        example: real inputs, two samples or so.

    Raises:
        PruneError: `torch.export` refuses the model.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> [(group.name, len(group)) for group in analyse(net, Batch((torch.ones(2, 3, 9, 9),), {}, None)).groups]
    [('0', 8)]
    """
    coupling = couple(model, example)
    frozen = [
        *coupling.frozen,
        *((group.name, "all of its channels hang together") for group in coupling.groups if len(group) < 2),
    ]
    groups = [group.name for group in coupling.groups if len(group) > 1]
    blocks = [block.name for block in coupling.blocks]
    probe = _Probe(model=_stirred(model), example=example, coupling=coupling)
    # A removed block hides what goes on inside it, so that groups go without blocks first.
    if (probe.fault(groups, []) or probe.fault(groups, blocks)) is not None:
        # Something is wrong with one of them: take each alone, and then with those that have passed.
        candidates, groups = groups, []
        for name in candidates:
            why = probe.fault([name], []) or probe.fault([*groups, name], [])
            if why is None:
                groups.append(name)
            else:
                frozen.append((name, why))
        candidates, blocks = blocks, []
        for name in candidates:
            why = probe.fault([], [name]) or probe.fault(groups, [*blocks, name])
            if why is None:
                blocks.append(name)
            else:
                frozen.append((f"block {name}", why))
    return replace(
        coupling,
        groups=tuple(group for group in coupling.groups if group.name in groups),
        blocks=tuple(block for block in coupling.blocks if block.name in blocks),
        frozen=tuple(frozen),
    )


def _stirred(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in twin.parameters():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator).to(value)
                value.add_(noise * 0.1 * (value.square().mean().sqrt() or 1.0))
    return twin


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    model: nn.Module
    example: Batch
    coupling: Coupling

    def fault(self, groups: Sequence[str], blocks: Sequence[str]) -> str | None:
        """Why these cannot go together, if so."""
        generator = np.random.default_rng(0)
        orders = {name: generator.permutation(len(self.coupling.group(name))).tolist() for name in groups}
        halves = {name: order[: len(order) // 2] for name, order in orders.items()}
        singles = {name: order[:-1] for name, order in orders.items()}
        for kept in (halves, singles):
            plan = make_plan(self.coupling, kept, blocks)
            try:
                prove(self.model, apply(self.model, plan), plan, self.example, noise=0)
            except PruneError as error:
                return error.problem
        return None


def prune(model: nn.Module, example: Batch, plan: PrunePlan) -> Pruned:
    """Apply `plan` to a copy of `model` and prove the outcome.

    Args:
        model: left as it is.
        example: real inputs for the proof, two samples or so.
        plan: what to remove.

    Raises:
        PruneError: the plan is for another model, or the proof fails.
    """
    smaller = apply(model, plan)
    return Pruned(model=smaller, plan=plan, proof=prove(model, smaller, plan, example))


def save(folder: Path, plan: PrunePlan, model: nn.Module) -> None:
    """Keep a pruned model: `plan.json` and `weights.safetensors`, which `replay` takes with the user's class.

    Raises:
        StoreError: the folder cannot be written.
    """
    from safetensors.torch import save as to_bytes

    # A tensor under two names is written once for each: safetensors refuses memory that is shared.
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}
    write_atomic(folder / WEIGHTS, to_bytes(state))
    write_json(folder / PLAN, plan.to_dict())


def load_plan(folder: Path) -> PrunePlan:
    """The plan that `save` wrote.

    Raises:
        PruneError: it is missing or no plan.
    """
    path = folder / PLAN
    try:
        return PrunePlan.from_dict(json.loads(path.read_text()), str(path))
    except (OSError, ValueError) as error:
        raise PruneError(
            f"cannot read: {error}", where=str(path), rule="a folder written by `edgekit prune`", way_out="prune again"
        ) from error


def replay(factory: Callable[[], nn.Module], folder: Path) -> nn.Module:
    """Rebuild a pruned model from the user's class, the plan and the weights; nothing is unpickled.

    Args:
        factory: makes the unpruned model.
        folder: what `save` wrote.

    Raises:
        PruneError: a file is missing, the plan is for another model, or the weights do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    model = apply(factory().eval(), load_plan(folder))
    try:
        model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise PruneError(
            f"the weights do not fit: {str(error).splitlines()[0]}",
            where=str(folder / WEIGHTS),
            rule="the weights that were saved with this plan",
            way_out="prune again",
        ) from error
    return model
