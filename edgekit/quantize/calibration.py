"""What activations look like on calibration data, from ONNX Runtime itself, in bounded memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Sized

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxruntime import InferenceSession

from edgekit.device.session import open_session
from edgekit.errors import QuantizeError
from edgekit.progress import Progress, Step
from edgekit.quantize.graph import initializer
from edgekit.quantize.ranges import Histogram
from edgekit.spec import Feeds, IOSpec

MEMORY_BYTES = 256 * 2**20
"""Activations that are held at once."""


def observe(
    model: ir.Model, values: Sequence[str], calibration: Iterable[Feeds], *, spec: IOSpec, progress: Progress
) -> dict[str, Histogram]:
    """Run the fp32 model on all batches with `values` as further outputs, and count what they are.

    Batches are cut so that the activations of one piece stay below 256 MB (where every input counts samples along its
    first axis); those of a piece are let go before the next one. Memory grows neither with the number of samples nor
    with the size of a batch.

    Raises:
        QuantizeError: there is no calibration data, or a value is NaN or infinite.
        EdgekitError: a batch does not fit the model's inputs.
    """
    given = {tensor.name for tensor in spec.inputs}
    computed = [name for name in values if name not in given]
    session = open_session(_with_outputs(model, computed), threads=0)
    histograms = {name: Histogram() for name in values}
    total = len(calibration) if isinstance(calibration, Sized) else 0
    done = 0
    size = 1
    for feeds in calibration:
        spec.check_feeds(feeds)
        rest: Feeds | None = feeds
        while rest is not None:
            piece, rest = _cut(rest, size, spec)
            arrays = dict(zip(computed, session.run(computed, dict(piece)), strict=True)) if computed else {}
            for name in values:
                histograms[name].add(piece[name] if name in given else arrays[name], name)
            held = sum(array.nbytes for array in arrays.values())
            size = max(1, MEMORY_BYTES * samples_in(piece) // max(held, 1))
        done += 1
        progress(Step("calibrating", done, max(total, done)))
    if not done:
        raise no_calibration_data()
    return histograms


class Observed:
    """Histograms that the plans of several targets share, so that the calibration data are gone through once for all.

    Args:
        values: what any of the targets will ask for. Other values cost a further pass when they are asked for.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._wanted = frozenset(values)
        self._seen: dict[Hashable, dict[str, Histogram]] = {}

    def of(
        self,
        model: ir.Model,
        version: Hashable,
        values: Sequence[str],
        calibration: Iterable[Feeds],
        *,
        spec: IOSpec,
        progress: Progress,
    ) -> Mapping[str, Histogram]:
        """`observe`, or what it gave when the same `version` of the model was asked for."""
        known = self._seen.setdefault(version, {})
        missing = sorted({*values, *(self._wanted if not known else ())} - set(known))
        if missing:
            known |= observe(model, missing, calibration, spec=spec, progress=progress)
        return known


def channel_means(model: ir.Model, values: Sequence[str], calibration: Iterable[Feeds]) -> dict[str, np.ndarray]:
    """The mean of each channel (axis 1) of `values` over all samples: float64 [channels] each.

    Space is averaged within the graph, so that no activation leaves it.
    """
    session = _reduced(model, dict.fromkeys(values, 1), "ReduceMean")
    sums = [np.zeros(1) for _ in values]
    count = 0
    for arrays in _runs(session, calibration):
        sums = [total + array.sum(axis=0, dtype=np.float64).ravel() for total, array in zip(sums, arrays, strict=True)]
        count += len(arrays[0])
    return {name: total / count for name, total in zip(values, sums, strict=True)}


def channel_limits(model: ir.Model, values: Mapping[str, int], calibration: Iterable[Feeds]) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel of values over all samples: float64 [channels] each.

    Args:
        model: an fp32 graph.
        values: names, and the axis of each one's channels: 1 or -1.
        calibration: batches of inputs.
    """
    session = _reduced(model, values, "ReduceMax")
    limits = [np.zeros(1) for _ in values]
    for arrays in _runs(session, calibration):
        limits = [
            np.maximum(limit, array.astype(np.float64).max(axis=0).ravel())
            for limit, array in zip(limits, arrays, strict=True)
        ]
    return dict(zip(values, limits, strict=True))


def _reduced(model: ir.Model, values: Mapping[str, int], reduction: str) -> InferenceSession:
    """A session whose outputs are `values` (or their magnitudes for ReduceMax) reduced to [batch, channels]."""
    twin = model.clone()
    graph = twin.graph
    found = {value.name: value for node in graph for value in node.outputs if value.name in values}
    outputs = []
    for name, axis in values.items():
        value = found[name]
        rank = len(value.shape) if value.shape is not None else 4
        if reduction == "ReduceMax":
            value = _behind(graph, ir.node("Abs", [value]), f"{name}_abs")
        kept = {0, axis % rank}
        axes = [index for index in range(rank) if index not in kept]
        if axes:
            value = _behind(graph, _reduction(twin, reduction, value, axes), f"{name}_reduced")
        outputs.append(value)
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    RemoveUnusedNodesPass()(twin)
    return open_session(_serialized(twin), threads=0)


def _reduction(model: ir.Model, kind: str, value: ir.Value, axes: list[int]) -> ir.Node:
    """Axes are an attribute up to opset 17 and an input from opset 18 on."""
    if model.opset_imports[""] < 18:
        return ir.node(kind, [value], {"axes": axes, "keepdims": 0})
    constant = initializer(model.graph, f"{value.name}.axes", np.array(axes, np.int64))
    return ir.node(kind, [value, constant], {"keepdims": 0})


def _behind(graph: ir.Graph, node: ir.Node, name: str) -> ir.Value:
    node.outputs[0].name, node.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
    graph.append(node)
    return node.outputs[0]


def _runs(session: InferenceSession, calibration: Iterable[Feeds]) -> Iterator[list[np.ndarray]]:
    known = {tensor.name for tensor in session.get_inputs()}
    for feeds in calibration:
        yield session.run(None, {name: array for name, array in feeds.items() if name in known})


def first_samples(calibration: Iterable[Feeds], count: int) -> list[Feeds]:
    """The first batches, as many as hold `count` samples."""
    found: list[Feeds] = []
    for feeds in calibration:
        found.append(feeds)
        count -= samples_in(feeds)
        if count <= 0:
            break
    return found


def no_calibration_data() -> QuantizeError:
    """The error for an empty calibration set."""
    return QuantizeError(
        "no calibration data", where="quantize", rule="at least one batch", way_out="some hundred samples are enough"
    )


def _cut(feeds: Feeds, size: int, spec: IOSpec) -> tuple[Feeds, Feeds | None]:
    """The first `size` samples, and the others if there are any."""
    first = {tensor.shape[0] if tensor.shape else None for tensor in spec.inputs}
    counts = {array.shape[0] if array.ndim else None for array in feeds.values()}
    dynamic = len(first) == 1 and isinstance(next(iter(first)), str) and len(counts) == 1
    if not dynamic or samples_in(feeds) <= size:
        return feeds, None
    return {name: a[:size] for name, a in feeds.items()}, {name: a[size:] for name, a in feeds.items()}


def samples_in(feeds: Feeds) -> int:
    """How many samples a batch holds."""
    return max((len(array) for array in feeds.values() if array.ndim), default=1)


def _with_outputs(model: ir.Model, values: Iterable[str]) -> bytes:
    twin = model.clone()
    wanted = set(values) - {value.name for value in twin.graph.outputs}
    twin.graph.outputs.extend(_typed(value) for node in twin.graph for value in node.outputs if value.name in wanted)
    return _serialized(twin)


def _typed(value: ir.Value) -> ir.Value:
    if value.type is None:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    return value


def _serialized(model: ir.Model) -> bytes:
    data: bytes = ir.to_proto(model).SerializeToString()
    return data
