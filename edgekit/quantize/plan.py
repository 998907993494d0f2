"""A quantization plan: which values are int8 on which scale. Data that prints, saves and compares."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from edgekit.errors import QuantizeError
from edgekit.spec import IOSpec

VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How one activation becomes an 8-bit integer: real = scale * (integer - zero_point)."""

    scale: float
    zero_point: int
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantPlan:
    """What is quantized, and how.

    Args:
        target: the kind of device.
        scheme: `static`, `dynamic`, `half` or `weights`.
        ranges: how activation ranges were chosen; empty where none are needed.
        weight_limit: largest absolute integer of a weight. For `weights` 128 or 8: 8 or 4 bits.
        activations: for each value of the graph its scale.
        nodes: names of the nodes that are to run in int8.
        reasons: for every other node why it does not.
        bias_shift: for a node the correction that is added to its bias, one number per output channel.
        weight_scales: for a node with weights the scale of each output channel; those of the largest weights for nodes
            that are not named.
        equalized: for a value the factors that its channels were divided by, and the weights of its readers multiplied
            with.
        costs_us: for each node that the device's profile knows in both forms, the predicted microseconds in fp32 and in
            int8.
        rewrites: names of the nodes that are written otherwise before (see `edgekit.quantize.rewrites`), because that
            is faster on the device.
    """

    target: str
    scheme: str
    ranges: str
    weight_limit: int
    activations: Mapping[str, Scale]
    nodes: tuple[str, ...]
    reasons: Mapping[str, str]
    bias_shift: Mapping[str, tuple[float, ...]]
    weight_scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    equalized: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    costs_us: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()

    def __str__(self) -> str:
        kind = f"with {self.weight_limit.bit_length()}-bit weights" if self.scheme == "weights" else "in int8"
        lines = [f"{self.scheme} for {self.target}: {len(self.nodes)} nodes {kind}"]
        lines += [f"  {name}: {why}" for name, why in self.reasons.items()]
        return "\n".join(lines)

    def restricted(self, nodes: Collection[str], why: str) -> Self:
        """The plan with fewer int8 nodes: those that it has among `nodes`; `why` is the reason for the others."""
        kept = tuple(name for name in self.nodes if name in nodes)
        gone = dict.fromkeys((name for name in self.nodes if name not in nodes), why)
        return replace(self, nodes=kept, reasons={**self.reasons, **gone})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` takes it back."""
        return {
            "version": VERSION,
            "target": self.target,
            "scheme": self.scheme,
            "ranges": self.ranges,
            "weight_limit": self.weight_limit,
            "activations": {name: asdict(scale) for name, scale in self.activations.items()},
            "nodes": list(self.nodes),
            "reasons": dict(self.reasons),
            "bias_shift": {name: list(shift) for name, shift in self.bias_shift.items()},
            "weight_scales": {name: list(scales) for name, scales in self.weight_scales.items()},
            "equalized": {name: list(factors) for name, factors in self.equalized.items()},
            "costs_us": {name: list(costs) for name, costs in self.costs_us.items()},
            "rewrites": list(self.rewrites),
        }

    @classmethod
    def from_dict(cls, data: Any, where: str = "plan") -> Self:
        """Read what `to_dict` wrote.

        Raises:
            QuantizeError: it is of another version, or no plan.
        """
        version = data.get("version") if isinstance(data, dict) else None
        if version != VERSION:
            raise QuantizeError(f"version {version!r}", where=where, rule=f"a plan of version {VERSION}")
        try:
            return cls(
                target=str(data["target"]),
                scheme=str(data["scheme"]),
                ranges=str(data["ranges"]),
                weight_limit=int(data["weight_limit"]),
                activations={str(name): Scale(**scale) for name, scale in data["activations"].items()},
                nodes=tuple(map(str, data["nodes"])),
                reasons={str(name): str(why) for name, why in data["reasons"].items()},
                bias_shift=_vectors(data["bias_shift"]),
                weight_scales=_vectors(data["weight_scales"]),
                equalized=_vectors(data["equalized"]),
                costs_us={str(name): (float(fp32), float(int8)) for name, (fp32, int8) in data["costs_us"].items()},
                rewrites=tuple(map(str, data["rewrites"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise QuantizeError(
                f"{type(error).__name__}: {error}",
                where=where,
                rule="what QuantPlan.to_dict writes",
                way_out="plan again",
            ) from error


def _vectors(data: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {str(name): tuple(map(float, numbers)) for name, numbers in data.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlacement:
    """What became of one node: its precision in the graph that ONNX Runtime really runs, and why.

    `fp32_us` and `int8_us` are what the device's profile predicts for it, where it could run in either.
    """

    name: str
    op: str
    precision: str
    reason: str
    fp32_us: float | None = None
    int8_us: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A quantized file.

    Args:
        path: the file.
        spec: its inputs and outputs.
        plan: what was done.
        nodes: each node of the fp32 graph, and what became of it.
        kernels: operators of the graph that ONNX Runtime makes of the file here, with their counts.
        sqnr_db: signal to quantization noise at the model's outputs on calibration data that the plan has not seen, in
            decibels.
        seen_here: what the machine that made the file could tell of it: run here, kernels read, or neither.
        measured_us: median microseconds of one sample here: of the fp32 file (`fp32`) and of each placement that was
            tried; empty where the placement is that of the rules, untimed.
    """

    path: Path
    spec: IOSpec
    plan: QuantPlan
    nodes: tuple[NodePlacement, ...]
    kernels: Mapping[str, int]
    sqnr_db: float
    seen_here: str
    measured_us: Mapping[str, float] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """`static`, `dynamic`, `half` or `weights`."""
        return self.plan.scheme

    @property
    def int8_nodes(self) -> int:
        """How many nodes ended in an int8 kernel."""
        return sum(node.precision == "int8" for node in self.nodes)

    @property
    def float_nodes(self) -> int:
        """How many did not."""
        return len(self.nodes) - self.int8_nodes

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, to be kept in the folder of the file: the path is its name alone."""
        return {
            "path": self.path.name,
            "spec": self.spec.to_dict(),
            "plan": self.plan.to_dict(),
            "nodes": [asdict(node) for node in self.nodes],
            "kernels": dict(self.kernels),
            "sqnr_db": self.sqnr_db,
            "seen_here": self.seen_here,
            "measured_us": dict(self.measured_us),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], folder: Path) -> Self:
        """Read what `to_dict` wrote; `folder` is where the file lies now."""
        return cls(
            path=folder / str(data["path"]),
            spec=IOSpec.from_dict(data["spec"]),
            plan=QuantPlan.from_dict(data["plan"]),
            nodes=tuple(NodePlacement(**node) for node in data["nodes"]),
            kernels={str(name): int(count) for name, count in data["kernels"].items()},
            sqnr_db=float(data["sqnr_db"]),
            seen_here=str(data["seen_here"]),
            measured_us={str(name): float(us) for name, us in data["measured_us"].items()},
        )
