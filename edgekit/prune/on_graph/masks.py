"""What stays of a tensor: for each dimension a mask, true for the indexes that stay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

Mask = np.ndarray
Masks = tuple[Mask, ...]


def everything(shape: Sequence[int]) -> Masks:
    """All of a tensor of that shape."""
    return tuple(np.ones(size, bool) for size in shape)


def sizes(masks: Masks) -> tuple[int, ...]:
    """The shape of what stays.

    >>> sizes((np.array([True, False, True]), np.array([True])))
    (2, 1)
    """
    return tuple(int(mask.sum()) for mask in masks)


def reshaped(masks: Masks, shape: Sequence[int]) -> Masks | None:
    """The masks of the same elements in another shape; None where what stays are no whole indexes there.

    >>> heads = np.repeat([True, False, True], 2)  # of three heads with two features each, the second goes
    >>> [mask.tolist() for mask in reshaped((heads,), (3, 2))]
    [[True, False, True], [True, True]]
    >>> reshaped((heads,), (2, 3)) is None
    True
    """
    found: list[Mask] = []
    old = [len(mask) for mask in masks]
    before = after = 0
    while before < len(old) or after < len(shape):
        first, start = before, after
        before, after = min(before + 1, len(old)), min(after + 1, len(shape))
        while (held := np.prod(old[first:before])) != (wanted := np.prod(shape[start:after])):
            if held < wanted and before < len(old):
                before += 1
            elif held > wanted and after < len(shape):
                after += 1
            else:
                return None
        part = _regrouped(masks[first:before], shape[start:after])
        if part is None:
            return None
        found += part
    return tuple(found)


def _regrouped(masks: Masks, shape: Sequence[int]) -> Masks | None:
    """Of dimensions that hold the same elements together."""
    elements = _elements(masks).reshape(shape)
    found: Masks = tuple(
        np.asarray(elements.any(axis=tuple(other for other in range(len(shape)) if other != axis)))
        for axis in range(len(shape))
    )
    return found if np.array_equal(_elements(found).reshape(shape), elements) else None


def _elements(masks: Masks) -> np.ndarray:
    """True for each element whose indexes all stay."""
    return reduce(np.logical_and.outer, masks, np.ones((), bool))
