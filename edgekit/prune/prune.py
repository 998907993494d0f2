"""The verbs: analyse a model, prune it with proof, keep it, and rebuild it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.errors import PruneError
from edgekit.prune.blocks import ResidualBlock
from edgekit.prune.counts import candidates, guesses
from edgekit.prune.coupling import Block, ChannelGroup, Coupling, couple
from edgekit.prune.plan import PrunePlan, is_inside, make_plan
from edgekit.prune.proof import Proof, prove
from edgekit.prune.surgery import apply
from edgekit.store import write_atomic, write_json
from edgekit.workload import Batch

_Kind = frozenset[tuple[str, int]]
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
    training starts from hides nothing. Numbers of channels that the user's modules keep as attributes (the heads of an
    attention) change with them where that makes the proof pass. What fails, alone or with those that passed before it,
    is frozen, with the reason.

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
    groups = [_guessed(model, group) for group in coupling.groups if len(group) > 1]
    blocks = list(coupling.blocks)
    probe = _Probe(model=_stirred(model), example=example, coupling=coupling)
    # A removed block hides what goes on inside it, so that groups go without blocks first.
    if _contested(groups) or (probe.fault(groups, []) or probe.fault(groups, blocks)) is not None:
        groups, fixed = _admitted(model, groups, [], probe, set())
        frozen += fixed
        blocks, fixed = _going(blocks, groups, [], probe)
        frozen += fixed
    return replace(coupling, groups=tuple(groups), blocks=tuple(blocks), frozen=tuple(frozen))


def _admitted(
    model: nn.Module, groups: Sequence[ChannelGroup], passed: Sequence[ChannelGroup], probe: _Probe, stiff: set[_Kind]
) -> tuple[list[ChannelGroup], list[tuple[str, str]]]:
    """Those that have passed with those of `groups` that do, and the reasons for the others.

    Where all of them pass at once, that is it; else each half is taken, so that many sound groups cost few probes. For
    kinds that are in `stiff`, because no counts helped one of them, none are guessed again.
    """
    if len(groups) == 1:
        fits, why = _fitting(model, groups[0], passed, probe, stiff)
        return ([*passed], [(groups[0].name, why)]) if fits is None else ([*passed, fits], [])
    frozen: list[tuple[str, str]] = []
    for half in (groups[: len(groups) // 2], groups[len(groups) // 2 :]):
        alike = [_like(model, group, passed) for group in half if _kind(group) not in stiff]
        together = [*passed, *alike]
        rest: Sequence[ChannelGroup] = half
        if alike and not _contested(together) and probe.fault(together, []) is None:
            passed, rest = together, [group for group in half if _kind(group) in stiff]
        if len(rest) == len(half) > 1:
            passed, why_not = _admitted(model, half, passed, probe, stiff)
            frozen += why_not
        else:
            for group in rest:
                passed, why_not = _admitted(model, [group], passed, probe, stiff)
                frozen += why_not
    return list(passed), frozen


def _kind(group: ChannelGroup) -> _Kind:
    """What groups of layers that are alike, one after the other, have in common: their tensors but for the numbers."""
    return frozenset((re.sub(r"\d+", "#", name), axis) for name, axis in group.tensors)


def _like(model: nn.Module, group: ChannelGroup, passed: Sequence[ChannelGroup]) -> ChannelGroup:
    """The group with the counts that made others pass, if it has attributes of the same names."""
    learned = {tuple(count.attribute for count in each.counts) for each in passed if each.counts}
    options = guesses(candidates(model, group)) if learned else ()
    fit = next((each for each in options if tuple(count.attribute for count in each) in learned), None)
    return group if fit is None else replace(group, counts=fit)


def _going(
    blocks: Sequence[Block], groups: Sequence[ChannelGroup], passed: Sequence[Block], probe: _Probe
) -> tuple[list[Block], list[tuple[str, str]]]:
    """The same for blocks, with groups that have passed."""
    if not blocks or probe.fault(groups, [*passed, *blocks]) is None:
        return [*passed, *blocks], []
    if len(blocks) == 1:
        fits, why = _removable(blocks[0], groups, passed, probe)
        return ([*passed], [(f"block {blocks[0].name}", why)]) if fits is None else ([*passed, fits], [])
    frozen: list[tuple[str, str]] = []
    for half in (blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]):
        passed, fixed = _going(half, groups, passed, probe)
        frozen += fixed
    return list(passed), frozen


def _guessed(model: nn.Module, group: ChannelGroup) -> ChannelGroup:
    """A group whose channels are several indexes wide (heads) is likely to be counted where a number fits."""
    is_wide = min(len(indexes) for indexes in group.channels[0].values()) > 1
    return replace(group, counts=candidates(model, group)) if is_wide else group


def _contested(groups: Sequence[ChannelGroup]) -> bool:
    """Whether one attribute is to count the channels of two groups, which a plan may narrow apart."""
    claims = [(count.module, count.attribute) for group in groups for count in group.counts]
    return len(set(claims)) < len(claims)


def _fitting(
    model: nn.Module, group: ChannelGroup, passed: Sequence[ChannelGroup], probe: _Probe, stiff: set[_Kind]
) -> tuple[ChannelGroup | None, str]:
    """The group with the counts that make it pass, alone and with those that have; or none and the reason."""
    learned = {tuple(count.attribute for count in each.counts) for each in passed}
    options = sorted(
        guesses(candidates(model, group) if _kind(group) not in stiff else ()),
        key=lambda counts: tuple(count.attribute for count in counts) not in learned,
    )
    reasons = {}
    for counts in options:
        tried = replace(group, counts=counts)
        fault = probe.fault([tried], []) or probe.fault([*passed, tried], [])
        if fault is None and not _contested([*passed, tried]):
            return tried, ""
        reasons[counts] = fault or "an attribute that counts its channels counts those of another group"
    if len(options) > 1:
        stiff.add(_kind(group))
    return None, reasons[()]


def _stirred(model: nn.Module) -> nn.Module:
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in twin.parameters():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator).to(value)
                value.add_(noise * 0.1 * (value.square().mean().sqrt() or 1.0))
    return twin


def _removable(
    block: Block, groups: Sequence[ChannelGroup], passed: Sequence[Block], probe: _Probe
) -> tuple[Block | None, str]:
    """The block as it passes, alone and with groups and blocks that have; or none and the reason.

    Where nothing can stand in for its other modules (sizes of what comes in and goes out differ, and the code counts on
    them), they stay: behind zeros they are dead, and no exported file has them.
    """
    reasons = []
    for tried in [block, *([replace(block, modules=())] if isinstance(block, ResidualBlock) and block.modules else [])]:
        fault = probe.fault([], [tried]) or probe.fault(groups, [*passed, tried])
        if fault is None:
            return tried, ""
        reasons.append(fault)
    return None, reasons[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    model: nn.Module
    example: Batch
    coupling: Coupling

    def fault(self, groups: Sequence[ChannelGroup], blocks: Sequence[Block]) -> str | None:
        """Why these cannot go together, if so."""
        # Of a block that goes, no plan narrows the inside.
        groups = [group for group in groups if not any(is_inside(group, block) for block in blocks)]
        generator = np.random.default_rng(0)
        coupling = replace(self.coupling, groups=tuple(groups), blocks=tuple(blocks))
        orders = {group.name: generator.permutation(len(group)).tolist() for group in groups}
        halves = {name: order[: len(order) // 2] for name, order in orders.items()}
        singles = {name: order[:-1] for name, order in orders.items()}
        for kept in (halves, singles):
            plan = make_plan(coupling, kept, [block.name for block in blocks])
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
