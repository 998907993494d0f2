"""What goes into a model and what comes out: names, dtypes and shapes, with symbolic dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from edgekit.errors import EdgekitError

Feeds = Mapping[str, np.ndarray]
"""Input arrays by name, as ONNX Runtime takes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output.

    `shape` holds an int for a fixed dimension and a name for a dynamic one; `dtype` is numpy's name for it.

    >>> TensorSpec(name="x", dtype="float32", shape=("batch", 3, 32, 32)).accepts(np.zeros((5, 3, 32, 32), "float32"))
    True
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def accepts(self, value: np.ndarray) -> bool:
        """Whether `value` has this dtype, this rank and these fixed dimensions."""
        shape = value.shape
        if value.dtype != np.dtype(self.dtype) or len(shape) != len(self.shape):
            return False
        # A loop and no generator: this is a part of every call of a model on a device.
        for want, have in zip(self.shape, shape, strict=True):
            if want != have and not isinstance(want, str):
                return False
        return True

    def check(self, value: np.ndarray) -> None:
        """Raise an `EdgekitError` that names both sides unless `accepts(value)`."""
        if not self.accepts(value):
            raise EdgekitError(
                f"got {value.dtype} {list(value.shape)}",
                where=f"tensor {self.name!r}",
                rule=f"expected {self}",
                way_out="convert the array, or leave the preprocessing to the bundle (`predict`)",
            )

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, data: object, where: str = "tensor") -> Self:
        """Read what `to_dict` wrote; the error names the path to the fault."""
        if not isinstance(data, Mapping):
            raise EdgekitError(f"got {type(data).__name__}", where=where, rule="expected an object")
        for key, kind in (("name", str), ("dtype", str), ("shape", list)):
            if not isinstance(data.get(key), kind):
                raise EdgekitError(f"got {data.get(key)!r}", where=f"{where}.{key}", rule=f"expected {kind.__name__}")
        try:
            np.dtype(data["dtype"])
        except (TypeError, ValueError, SyntaxError) as error:
            raise EdgekitError(f"got {data['dtype']!r}", where=f"{where}.dtype", rule="a numpy dtype name") from error
        for index, size in enumerate(data["shape"]):
            if isinstance(size, bool) or not isinstance(size, int | str) or (isinstance(size, int) and size < 0):
                raise EdgekitError(
                    f"got {size!r}", where=f"{where}.shape[{index}]", rule="a size or a dimension's name"
                )
        return cls(name=data["name"], dtype=data["dtype"], shape=tuple(data["shape"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class IOSpec:
    """All inputs and all outputs of a model, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check_feeds(self, feeds: Feeds) -> None:
        """Raise an `EdgekitError` unless `feeds` holds exactly these inputs."""
        names = [spec.name for spec in self.inputs]
        if len(feeds) != len(names) or not all(map(feeds.__contains__, names)):
            raise EdgekitError(f"got inputs {sorted(feeds)}", where="feeds", rule=f"expected {sorted(names)}")
        for spec in self.inputs:
            spec.check(feeds[spec.name])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {"inputs": [s.to_dict() for s in self.inputs], "outputs": [s.to_dict() for s in self.outputs]}

    @classmethod
    def from_dict(cls, data: object, where: str = "io") -> Self:
        """Read what `to_dict` wrote; the error names the path to the fault."""
        if not isinstance(data, Mapping):
            raise EdgekitError(f"got {type(data).__name__}", where=where, rule="expected an object")
        sides: dict[str, tuple[TensorSpec, ...]] = {}
        for side in ("inputs", "outputs"):
            rows = data.get(side)
            if not isinstance(rows, Sequence) or isinstance(rows, str):
                raise EdgekitError(f"got {rows!r}", where=f"{where}.{side}", rule="expected a list of tensors")
            sides[side] = tuple(TensorSpec.from_dict(row, f"{where}.{side}[{i}]") for i, row in enumerate(rows))
        return cls(inputs=sides["inputs"], outputs=sides["outputs"])


def spec_of(model: Any) -> IOSpec:
    """Inputs and outputs of a graph, open dimensions by name.

    Args:
        model: an `onnx_ir.Model`; its attributes are read, so that nothing has to be imported.

    Raises:
        ValueError: an input or output has no type or no rank.
    """
    return IOSpec(inputs=_tensors(model.graph.inputs), outputs=_tensors(model.graph.outputs))


def _tensors(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:
        if value.shape is None or value.dtype is None:
            raise ValueError(f"{value.name} has no type or no rank")
        shape = tuple(
            size if isinstance(size, int) else str(size.value or f"{value.name}_{axis}")
            for axis, size in enumerate(value.shape)
        )
        specs.append(TensorSpec(name=str(value.name), dtype=value.dtype.numpy().name, shape=shape))
    return tuple(specs)
