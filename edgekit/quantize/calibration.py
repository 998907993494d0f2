"""What activations look like on calibration data, from ONNX Runtime itself, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgekit.device.session import open_session
from edgekit.errors import QuantizeError
from edgekit.progress import Progress, Step
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
    total = len(calibration) if isinstance(calibration, Sequence) else 0
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
            size = max(1, MEMORY_BYTES * _samples(piece) // max(held, 1))
        done += 1
        progress(Step("calibrating", done, max(total, done)))
    if not done:
        raise no_calibration_data()
    return histograms


def channel_means(model: ir.Model, values: Sequence[str], calibration: Iterable[Feeds]) -> dict[str, np.ndarray]:
    """The mean of each channel (axis 1) of `values` over all samples: float64 [channels] each.

    Space is averaged within the graph, so that no activation leaves it.
    """
    twin = model.clone()
    graph = twin.graph
    found = {value.name: value for node in graph for value in node.outputs if value.name in set(values)}
    outputs = []
    for name in values:
        value = found[name]
        if value.shape is None or len(value.shape) > 2:
            pool = ir.node("GlobalAveragePool", [value], name=f"{name}_mean")
            pool.outputs[0].name, pool.outputs[0].type = f"{name}_mean", ir.TensorType(ir.DataType.FLOAT)
            graph.append(pool)
            value = pool.outputs[0]
        outputs.append(value)
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    RemoveUnusedNodesPass()(twin)
    session = open_session(_serialized(twin), threads=0)
    known = {tensor.name for tensor in session.get_inputs()}
    sums = [np.zeros(1) for _ in values]
    count = 0
    for feeds in calibration:
        arrays = session.run(None, {name: array for name, array in feeds.items() if name in known})
        sums = [total + array.sum(axis=0, dtype=np.float64).ravel() for total, array in zip(sums, arrays, strict=True)]
        count += len(arrays[0])
    return {name: total / count for name, total in zip(values, sums, strict=True)}


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
    if not dynamic or _samples(feeds) <= size:
        return feeds, None
    return {name: a[:size] for name, a in feeds.items()}, {name: a[size:] for name, a in feeds.items()}


def _samples(feeds: Feeds) -> int:
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
