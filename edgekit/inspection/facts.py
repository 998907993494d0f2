"""What is known of a model, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgekit.spec import TensorSpec

INT8, FLOAT = "int8", "float"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A node of an ONNX graph, or a module of PyTorch, that computes or has weights.

    Args:
        name: its name, or else that of its first output.
        operator: its type, with the domain where that is not ONNX's own.
        macs: multiply-accumulates for the sizes that were assumed; None where they cannot be told.
        precision: `int8`, or the type in which it computes (`float32`, `float16`, ...); empty where nothing is
            multiplied.
        why: of one that is not int8, why not; or why its multiply-accumulates cannot be told.
        parameters: numbers in its weights.
        weight_bytes: what they take in the file. Shared weights are with the first layer that reads them.
    """

    name: str
    operator: str
    macs: int | None = 0
    precision: str = ""
    why: str = ""
    parameters: int = 0
    weight_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known of a model.

    Args:
        kind: `onnx` or `torch`.
        inputs: open dimensions by name.
        outputs: likewise.
        assumed: the sizes of inputs for which multiply-accumulates are counted.
        operators: with their counts, the most frequent first, those of nested graphs included.
        layers: in the order in which they run.
        parameters: numbers in all weights; scales, zero points, shapes and scalars are none.
        weight_bytes: of all constants, by type.
        uncounted: operators without a rule for multiply-accumulates, with the names of their nodes.
        size_bytes: of the file, without external data; 0 for a model of PyTorch.
        sha256: of the file.
        opsets: version of each domain.
        ir_version: of the file.
        producer: what wrote the file.
        metadata: what else the file says about itself.
        external: files with weights beside this one: bytes by name, None for one that is not there or would lie outside
            of the folder.
        nodes: of the graph.
        tensors: constants of the graph.
    """

    kind: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    assumed: Mapping[str, tuple[int | str, ...]]
    operators: Mapping[str, int]
    layers: tuple[Layer, ...]
    parameters: int
    weight_bytes: Mapping[str, int]
    uncounted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    size_bytes: int = 0
    sha256: str = ""
    opsets: Mapping[str, int] = field(default_factory=dict)
    ir_version: int = 0
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    external: Mapping[str, int | None] = field(default_factory=dict)
    nodes: int = 0
    tensors: int = 0

    @property
    def dynamic(self) -> dict[str, list[str]]:
        """Open dimensions, and where each occurs, such as `x:0`."""
        found: dict[str, list[str]] = {}
        for tensor in (*self.inputs, *self.outputs):
            for axis, size in enumerate(tensor.shape):
                if isinstance(size, str):
                    found.setdefault(size, []).append(f"{tensor.name}:{axis}")
        return found

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers whose count can be told; see `unknown` for the others."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def unknown(self) -> tuple[Layer, ...]:
        """Layers whose multiply-accumulates cannot be told: they are not in `macs`."""
        return tuple(layer for layer in self.layers if layer.macs is None)

    @property
    def computing(self) -> tuple[Layer, ...]:
        """Layers that multiply and accumulate: convolutions, products, recurrent layers, attention."""
        return tuple(layer for layer in self.layers if layer.precision)

    @property
    def int8_share_of_macs(self) -> float | None:
        """Share of the multiply-accumulates that are in int8, from 0 to 1; None if there are none."""
        done = sum(layer.macs or 0 for layer in self.computing if layer.precision == INT8)
        return done / self.macs if self.macs else None

    @property
    def int8_share_of_nodes(self) -> float | None:
        """Share of the computing layers that are in int8, from 0 to 1; None if there are none."""
        layers = self.computing
        return sum(layer.precision == INT8 for layer in layers) / len(layers) if layers else None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "kind": self.kind,
            "inputs": [tensor.to_dict() for tensor in self.inputs],
            "outputs": [tensor.to_dict() for tensor in self.outputs],
            "dynamic": self.dynamic,
            "assumed": {name: list(shape) for name, shape in self.assumed.items()},
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "ir_version": self.ir_version,
            "opsets": dict(self.opsets),
            "producer": self.producer,
            "metadata": dict(self.metadata),
            "external": dict(self.external),
            "nodes": self.nodes,
            "tensors": self.tensors,
            "operators": dict(self.operators),
            "parameters": self.parameters,
            "weight_bytes": dict(self.weight_bytes),
            "macs": self.macs,
            "uncounted": {name: list(nodes) for name, nodes in self.uncounted.items()},
            "unknown": [layer.name for layer in self.unknown],
            "int8": {
                "share_of_macs": self.int8_share_of_macs,
                "share_of_nodes": self.int8_share_of_nodes,
                "not_int8": {layer.name: layer.why for layer in self.computing if layer.precision != INT8},
            },
            "layers": [asdict(layer) for layer in self.layers],
        }
