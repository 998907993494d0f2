"""A module's own record of its sizes, brought in line with its tensors: one function for each kind of module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from edgekit.prune.narrow_attention import narrow

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
CHANNELS_FIRST = (*CONVOLUTIONS, *TRANSPOSED, *NORMS, nn.GroupNorm)


def resize(module: nn.Module) -> None:
    """Bring the sizes that a module of `torch.nn` keeps as numbers in line with its tensors; other modules have none.

    >>> layer = nn.Linear(3, 2)
    >>> layer.weight = nn.Parameter(layer.weight[:, :2])
    >>> resize(layer)
    >>> layer
    Linear(in_features=2, out_features=2, bias=True)
    """
    for kinds, act in _KINDS:
        if isinstance(module, kinds):
            act(module)
    # Others call it as `nn.LayerNorm` does.
    shape, weight = getattr(module, "normalized_shape", None), getattr(module, "weight", None)
    if isinstance(shape, tuple) and len(shape) == 1 and isinstance(weight, nn.Parameter):
        setattr(module, "normalized_shape", tuple(weight.shape))  # noqa: B010 - no attribute that every module has


# What each takes is one of the kinds beside it in the table below, which the type checker cannot see.
def _convolution(module: Any) -> None:
    per_group = module.out_channels // module.groups
    module.out_channels = module.weight.shape[0]
    if module.groups > 1:
        module.groups = module.out_channels // per_group
    module.in_channels = module.weight.shape[1] * module.groups


def _transposed(module: Any) -> None:
    per_group = module.in_channels // module.groups
    module.in_channels = module.weight.shape[0]
    if module.groups > 1:
        module.groups = module.in_channels // per_group
    module.out_channels = module.weight.shape[1] * module.groups


def _linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _embedding(module: Any) -> None:
    module.embedding_dim = module.weight.shape[1]


def _group_norm(module: Any) -> None:
    if module.weight is not None:
        per_group = module.num_channels // module.num_groups
        module.num_channels = module.weight.shape[0]
        # One alone is over all channels, however many are left.
        module.num_groups = max(module.num_channels // per_group, 1)


def _norm(module: Any) -> None:
    sized = module.weight if module.weight is not None else module.running_mean
    module.num_features = sized.shape[0]


def _prelu(module: Any) -> None:
    module.num_parameters = module.weight.shape[0]


def _recurrent(module: Any) -> None:
    module.input_size = module.weight_ih_l0.shape[1]
    if module.proj_size:
        module.proj_size, module.hidden_size = module.weight_hr_l0.shape
    else:
        module.hidden_size = module.weight_hh_l0.shape[1]


def _recurrent_cell(module: Any) -> None:
    module.input_size, module.hidden_size = module.weight_ih.shape[1], module.weight_hh.shape[1]


_KINDS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], Callable[[Any], None]], ...] = (
    (CONVOLUTIONS, _convolution),
    (TRANSPOSED, _transposed),
    (nn.Linear, _linear),
    (nn.Embedding, _embedding),
    (nn.GroupNorm, _group_norm),
    (NORMS, _norm),
    (nn.PReLU, _prelu),
    (nn.MultiheadAttention, narrow),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _recurrent_cell),
)
