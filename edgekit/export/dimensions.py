"""Which dimensions of the inputs stay open, and what they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from edgekit.errors import ExportError, did_you_mean

BATCH = "batch"

Dynamic = Literal["batch", "none"] | Mapping[str, Mapping[int, str]]
"""`batch`: the first dimension of every input; `none`: nothing; or, by input name, the open dimensions' names, with
`batch` for inputs that are not named."""

Names = tuple[dict[int, str], ...]
"""For each input tensor, the names of its open dimensions by axis."""


def open_dimensions(dynamic: Dynamic, names: Sequence[str], tensors: Sequence[Tensor]) -> Names:
    """What `dynamic` means for these inputs.

    Raises:
        ExportError: an input or an axis that is not there, or one name for dimensions of different sizes.

    >>> open_dimensions({"x": {0: "batch", 2: "time"}}, ["x"], [torch.ones(2, 3, 4)])
    ({0: 'batch', 2: 'time'},)
    """
    if isinstance(dynamic, str):
        if dynamic not in ("batch", "none"):
            raise ExportError(
                f"got {dynamic!r}",
                where="dynamic",
                rule="'batch', 'none', or open dimensions by input: {'x': {0: 'batch', 2: 'height', 3: 'width'}}",
            )
        return tuple({0: BATCH} if dynamic == "batch" and tensor.ndim else {} for tensor in tensors)
    unknown = sorted(set(dynamic) - set(names))
    if unknown:
        raise ExportError(
            f"no input {unknown[0]!r}",
            where="dynamic",
            rule=f"the inputs are {', '.join(names)}",
            way_out=did_you_mean(unknown[0], names),
        )
    dimensions = tuple(
        dict(dynamic[name]) if name in dynamic else {0: BATCH} if tensor.ndim else {}
        for name, tensor in zip(names, tensors, strict=True)
    )
    sizes: dict[str, int] = {}
    for name, tensor, axes in zip(names, tensors, dimensions, strict=True):
        for axis, title in axes.items():
            if not 0 <= axis < tensor.ndim:
                raise ExportError(
                    f"no axis {axis}",
                    where=f"dynamic[{name!r}]",
                    rule=f"the example has the axes 0 to {tensor.ndim - 1}",
                )
            size = tensor.shape[axis]
            if sizes.setdefault(title, size) != size:
                raise ExportError(
                    f"{title!r} is {sizes[title]} and {size} in the example",
                    where=f"dynamic[{name!r}][{axis}]",
                    rule="one name stands for one size",
                    way_out="give the dimensions different names",
                )
    return dimensions


def resized(tensors: Sequence[Tensor], dimensions: Names, sizes: Mapping[str, int]) -> list[Tensor]:
    """The tensors with their open dimensions at `sizes`, repeated or cut along each; never a value that was not there.

    >>> resized([torch.tensor([1, 2])], ({0: "batch"},), {"batch": 3})
    [tensor([1, 2, 1])]
    """
    results = []
    for tensor, axes in zip(tensors, dimensions, strict=True):
        result = tensor
        for axis, name in axes.items():
            if name in sizes and tensor.shape[axis]:
                index = torch.arange(sizes[name], device=tensor.device) % tensor.shape[axis]
                result = result.index_select(axis, index)
        results.append(result)
    return results


def sizes_of(tensors: Sequence[Tensor], dimensions: Names) -> dict[str, int]:
    """The size that each open dimension has in the example."""
    return {
        name: int(tensor.shape[axis])
        for tensor, axes in zip(tensors, dimensions, strict=True)
        for axis, name in axes.items()
    }
