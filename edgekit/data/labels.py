"""Classes by name: the same number for the same name in all data, and in the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from edgekit.data.source import Source
from edgekit.errors import DataError

T = TypeVar("T")


class Relabelled:
    """A source whose classes are numbered as in `names`; items are (inputs, ..., class index).

    >>> class Two:
    ...     classes, labels = ["cat", "dog"], [0, 1]
    ...     __len__ = lambda self: 2
    ...     __getitem__ = lambda self, index: (np.zeros(1), self.labels[index])
    >>> data = Relabelled(Two(), ["dog", "cat", "emu"])
    >>> data.labels, data[1][1]
    ([1, 0], 0)
    """

    def __init__(self, source: Source, names: Sequence[str]) -> None:
        self.source, self.classes = source, list(names)
        self._number = [self.classes.index(name) for name in classes_of(source)]
        found = getattr(source, "labels", None)
        found = getattr(source, "targets", None) if found is None else found
        if found is not None:
            self.labels = [self._number[int(label)] for label in found]
        if hasattr(source, "collate"):
            self.collate = source.collate

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        *inputs, label = self.source[index]
        return (*inputs, self._number[int(label)])


def classes_of(data: Any) -> list[str]:
    """The names of the classes that the data bring along, by index; empty where they bring none."""
    found = getattr(data, "classes", None)
    return list(map(str, found)) if isinstance(found, Sequence | np.ndarray) and not isinstance(found, str) else []


def relabelled(data: T, names: Sequence[str], where: str) -> T | Relabelled:
    """`data` with its classes numbered as in `names`; data without names for classes as they are.

    Raises:
        DataError: the data have a class that is not among `names`.
    """
    own = classes_of(data)
    if not own or own == list(names):
        return data
    unknown = [name for name in own if name not in names]
    if unknown:
        raise DataError(
            f"has the class {unknown[0]!r}" + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""),
            where=where,
            rule=f"only {', '.join(names[:8])}{', …' if len(names) > 8 else ''}",
            way_out="name classes alike in all data and in the model, or name them with --labels",
        )
    return Relabelled(data, names)  # type: ignore[arg-type]  # what has classes has samples


def numbered(values: Sequence[str]) -> tuple[list[int], list[str]]:
    """Names of classes as numbers, and what each number is called: in the order of the alphabet.

    >>> numbered(["dog", "cat", "dog"])
    ([1, 0, 1], ['cat', 'dog'])
    """
    names = sorted(set(values))
    number = {name: index for index, name in enumerate(names)}
    return [number[value] for value in values], names
