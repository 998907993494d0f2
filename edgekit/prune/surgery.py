"""Applying a plan to the user's own modules: their classes stay, their tensors get smaller."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit.errors import PruneError
from edgekit.prune.blocks import ResidualBlock, remove, unfuse
from edgekit.prune.coupling import first_names, tensor_sizes, tensors_of, without_caches
from edgekit.prune.norms import read_the_rest
from edgekit.prune.plan import PrunePlan, fingerprint
from edgekit.prune.recurrent_layers import PassingSequence, RecurrentLayer, drop_layers, original_name, skip_layers
from edgekit.prune.residual import FEATURES_LAST
from edgekit.prune.resize import CHANNELS_FIRST, TRANSPOSED, resize
from edgekit.prune.resolution import scale_input


def apply(model: nn.Module, plan: PrunePlan) -> nn.Module:
    """A copy of `model` without what the plan removes.

    Raises:
        PruneError: the plan was made for another model.
    """
    check_fit(model, plan)
    pruned = without_caches(model)
    modules = dict(pruned.named_modules())
    tied = _tied(pruned, plan)
    for name, others in tied.items():
        owner, _, attribute = name.rpartition(".")
        _shrink(modules[owner], attribute, plan.slices[name])
        for other in others:
            setattr(modules[_owner(other)], other.rpartition(".")[2], getattr(modules[owner], attribute))
    owners = sorted({_owner(each) for name, others in tied.items() for each in (name, *others)})
    for owner in owners:
        resize(modules[owner])
    unfuse(pruned, [owner for owner in owners if isinstance(modules[owner], nn.MultiheadAttention)])
    for name, attributes in plan.counts.items():
        for attribute, value in attributes.items():
            setattr(modules[name], attribute, value)
    _take_out(pruned, modules, plan)
    if plan.resolution is not None:
        scale_input(pruned, plan.resolution)
    return pruned


def _take_out(pruned: nn.Module, modules: Mapping[str, nn.Module], plan: PrunePlan) -> None:
    """The blocks and the recurrent layers of a plan, in place."""
    for block in plan.blocks:
        if isinstance(block, ResidualBlock):
            remove(pruned, block, _narrowed_shape(modules[block.last], block, plan))
    for name, layers in _lost_layers(plan).items():
        module = modules[name]
        assert isinstance(module, nn.RNNBase)
        if 0 in layers:
            pruned.set_submodule(name, PassingSequence(module))
        else:
            drop_layers(module, layers)


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _tied(model: nn.Module, plan: PrunePlan) -> dict[str, list[str]]:
    """For each tensor that gets smaller the other names it has, in modules of their own."""
    first, modules = first_names(model), dict(model.named_modules())
    return {
        name: [other for other, it in first.items() if it == name and other != it and _owner(other) in modules]
        for name in plan.slices
    }


def _outputs(module: nn.Module, name: str, plan: PrunePlan) -> Sequence[int]:
    """The outputs of a module that a plan removes from one of its tensors."""
    if isinstance(module, nn.RNNBase):
        # What reads a layer's own state has a column for each output.
        return plan.slices[name].get(1, ()) if name.endswith("weight_hh_l0") else ()
    return plan.slices[name].get(1 if isinstance(module, TRANSPOSED) and name.endswith("weight") else 0, ())


def _lost_layers(plan: PrunePlan) -> dict[str, list[int]]:
    """For each recurrent module the layers that go."""
    layers = [block for block in plan.blocks if isinstance(block, RecurrentLayer)]
    return {name: [each.layer for each in layers if each.module == name] for name in {each.module for each in layers}}


def _narrowed_shape(last: nn.Module, block: ResidualBlock, plan: PrunePlan) -> tuple[int, ...]:
    """The shape of a removed branch's zeros when the stream that they are added to has been narrowed as well."""
    # A normalization without weights has running statistics to go by.
    names = [name for name in plan.slices if _owner(name) == block.last]
    # Which side of its weight a layer of somebody's own reads is not known; its bias has a number for each output.
    biases = [name for name in names if getattr(last, name.rpartition(".")[2]).ndim == 1]
    is_own = not isinstance(last, (*CHANNELS_FIRST, *FEATURES_LAST))
    gone = max((len(_outputs(last, name, plan)) for name in (is_own and biases) or names), default=0)
    if isinstance(last, nn.RNNBase) and last.bidirectional:
        gone *= 2
    left = getattr(last, biases[0].rpartition(".")[2]).shape[0] if biases else 0
    is_last = isinstance(last, FEATURES_LAST) or (is_own and block.shape[-1] == left + gone)
    axis = len(block.shape) - 1 if is_last else 0
    return tuple(size - gone if index == axis else size for index, size in enumerate(block.shape))


def check_fit(model: nn.Module, plan: PrunePlan) -> None:
    """Raise a `PruneError` unless the plan was made for a model with these tensors, and removes what there is."""
    sizes = tensor_sizes(model)
    found = fingerprint(sizes)
    if found != plan.fingerprint:
        raise PruneError(
            f"the model's tensors have fingerprint {found[:12]}",
            where=type(model).__name__,
            rule=f"the plan was made for {plan.fingerprint[:12]}",
            way_out="apply it to the model it was made for, or prune this one",
        )
    wrong = [
        f"from {name!r} dim {axis}"
        for name, axes in plan.slices.items()
        for axis, indexes in axes.items()
        if not (0 <= axis < len(sizes.get(name, ())) and all(0 <= index < sizes[name][axis] for index in indexes))
    ]
    modules = dict(model.named_modules())
    for block in plan.blocks:
        if isinstance(block, ResidualBlock):
            wrong += [repr(name) for name in (block.last, block.ending, *block.modules) if name not in modules]
        elif not _has_layer(modules.get(block.module), block.layer):
            wrong.append(f"layer {block.layer} of {block.module!r}")
    wrong += [f"channels in front of {name!r}" for name in plan.norms if name not in modules]
    wrong += [
        f"channels that {name!r} counts as {attribute!r}"
        for name, attributes in plan.counts.items()
        for attribute in attributes
        if type(getattr(modules.get(name), attribute, None)) is not int
    ]
    if wrong:
        raise PruneError(
            f"the plan removes {wrong[0]}",
            where=type(model).__name__,
            rule="tensors, indexes and modules that the model has",
            way_out="the plan was edited; prune again",
        )


def _has_layer(module: nn.Module | None, layer: int) -> bool:
    """Whether a module has that layer, and it may go: the first one only if there is no other."""
    if not isinstance(module, nn.RNNBase):
        return False
    return layer == 0 if module.num_layers == 1 else 1 <= layer < module.num_layers


def masked(model: nn.Module, plan: PrunePlan) -> nn.Module:
    """A copy of `model` in which everything that the plan removes is zero: the reference of the proof.

    A removed channel's slices are zero in the tensors that make it and in those that read it, so it contributes
    nothing, whatever the activation between makes of zero; normalizations over channels leave it out. A removed block's
    last module answers zero, a removed recurrent layer what it is given. Images are scaled alike.
    """
    check_fit(model, plan)
    twin = without_caches(model)
    for name, axis in plan.norms.items():
        _leave_out(twin.get_submodule(name), name, axis, plan)
    tensors = tensors_of(twin)
    with torch.no_grad():
        for name, axes in plan.slices.items():
            for axis, indexes in axes.items():
                tensors[name].index_fill_(axis, torch.tensor(indexes), 0.0)
    modules = dict(twin.named_modules())
    for block in plan.blocks:
        if isinstance(block, ResidualBlock):
            # By a hook and not by zero weights: that holds for any layer.
            modules[block.ending].register_forward_hook(lambda _module, _in, output: pytree.tree_map(_zeros, output))
    for name, layers in _lost_layers(plan).items():
        skip_layers(modules[name], layers)
    if plan.resolution is not None:
        scale_input(twin, plan.resolution)
    return twin


def _leave_out(module: nn.Module, name: str, axis: int, plan: PrunePlan) -> None:
    smaller, gone = copy.deepcopy(module), set[int]()
    for attribute, _ in module.named_parameters():
        axes = plan.slices.get(f"{name}.{attribute}", {})
        _shrink(smaller, attribute, axes)
        gone.update(index for indexes in axes.values() for index in indexes)
    resize(smaller)
    read_the_rest(module, smaller, axis, sorted(gone))


def _zeros(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else value


def lift(model: nn.Module, pruned: nn.Module, plan: PrunePlan) -> nn.Module:
    """A copy of `model`, unpruned, with the weights of `pruned` where those exist.

    With it a bolder plan, made for the unpruned model, starts from what a milder one has recovered. What the milder
    plan removed has its original values; the bolder one must remove it too.
    """
    check_fit(model, plan)
    twin = without_caches(model)
    targets, lost, first = twin.state_dict(), _lost_layers(plan), first_names(model)
    sources = {original_name(name, lost): value for name, value in pruned.state_dict().items()}
    sources = {name: value for name, value in sources.items() if first.get(name, name) == name}
    with torch.no_grad():
        for name, source in sources.items():
            target = targets[name]
            axes = plan.slices.get(name, {})
            if not axes:
                target.copy_(source)
                continue
            grid = [torch.tensor(_kept(size, axes.get(axis, ()))) for axis, size in enumerate(target.shape)]
            target[torch.meshgrid(*grid, indexing="ij")] = source
    return twin


def _kept(size: int, removed: Sequence[int]) -> list[int]:
    gone = set(removed)
    return [index for index in range(size) if index not in gone]


def _shrink(module: nn.Module, attribute: str, axes: Mapping[int, Sequence[int]]) -> None:
    value = getattr(module, attribute)
    data = value.detach()
    for axis, removed in axes.items():
        data = data.index_select(axis, torch.tensor(_kept(data.shape[axis], removed)))
    data = data.contiguous().clone()
    if isinstance(value, nn.Parameter):
        setattr(module, attribute, nn.Parameter(data, requires_grad=value.requires_grad))
    else:
        module._buffers[attribute] = data  # noqa: SLF001 - the one place that torch keeps buffers in
