"""Images scaled down before the network sees them: a decision like any other, where the user allows it.

The work of convolutions falls with the square of the resolution (M. Tan and Q. Le, *EfficientNet*, 2019, section 3).
The scaling becomes part of the network and of its ONNX file, so an app goes on feeding what it has fed, and what the
scaling costs is in every measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that the field gives it
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekit.errors import PruneError
from edgekit.workload import Batch, outputs_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """An image input, and the size that it is scaled to.

    Args:
        leaf: which of the model's input tensors, in the order of `Batch.leaves`.
        before: its height and width.
        after: the height and width that the network sees.
    """

    leaf: int
    before: tuple[int, int]
    after: tuple[int, int]

    def __str__(self) -> str:
        return "input: {}x{} -> {}x{}".format(*self.before, *self.after)


def resolutions(model: nn.Module, example: Batch, heights: Sequence[int]) -> list[Resolution]:
    """The sizes that `model` can be given instead of the example's, of these heights; widths keep the proportion.

    Args:
        model: left as it is.
        example: real inputs, among them one image [n, c, height, width].
        heights: in pixels.

    Raises:
        PruneError: there is no such input or more than one, a height is not smaller, or the model does not take images
            of that size or answers in other shapes.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    >>> [str(found) for found in resolutions(net, Batch((torch.ones(2, 3, 32, 48),), {}, None), [24])]
    ['input: 32x48 -> 24x36']
    """
    images = [i for i, leaf in enumerate(example.leaves()) if leaf.ndim == 4 and leaf.is_floating_point()]
    if heights and len(images) != 1:
        raise PruneError(
            f"{len(images)} of the inputs are images",
            where="--resolution",
            rule="one floating-point input [n, c, height, width]",
            way_out="leave --resolution out",
        )
    return [_fitting(model, example, images[0], height) for height in heights]


def _fitting(model: nn.Module, example: Batch, leaf: int, height: int) -> Resolution:
    before = tuple(map(int, example.leaves()[leaf].shape[2:]))
    if not 1 <= height < before[0]:
        raise PruneError(
            f"height {height}", where="--resolution", rule=f"1 to {before[0] - 1}: the images are {before[0]} high"
        )
    found = Resolution(leaf=leaf, before=(before[0], before[1]), after=(height, round(before[1] * height / before[0])))
    handle = scale_input(model, found)
    try:
        with torch.no_grad():
            have = [value.shape for value in outputs_of(example.call(model))]
    except Exception as error:
        raise _refused(found, f"{type(error).__name__}: {error}") from error
    finally:
        handle.remove()
    with torch.no_grad():
        want = [value.shape for value in outputs_of(example.call(model))]
    if have != want:
        raise _refused(found, f"it answers in shapes {[list(shape) for shape in have]}")
    return found


def scale_input(model: nn.Module, resolution: Resolution) -> Any:
    """Let `model` scale that input before it runs; `remove()` of what is returned ends it."""
    return model.register_forward_pre_hook(_Scaling(resolution), with_kwargs=True)


class _Scaling:
    """A hook before the model's forward. Bilinear without a filter: ONNX Runtime takes ten times as long with one."""

    def __init__(self, resolution: Resolution) -> None:
        self.resolution = resolution

    def __call__(self, _model: nn.Module, args: Any, kwargs: Any) -> Any:
        leaves, structure = pytree.tree_flatten((args, kwargs))
        place = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)][self.resolution.leaf]
        leaves[place] = F.interpolate(leaves[place], size=self.resolution.after, mode="bilinear", align_corners=False)
        return pytree.tree_unflatten(leaves, structure)


def _refused(resolution: Resolution, why: str) -> PruneError:
    return PruneError(
        f"the model does not take images of {resolution.after[0]}x{resolution.after[1]}: {why.splitlines()[0]}",
        where="--resolution",
        rule="the same outputs for smaller images",
        way_out="its layers count on one size; leave this one out",
    )
