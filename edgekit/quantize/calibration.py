"""What activations look like on calibration data, from ONNX Runtime itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgekit.device.session import open_session
from edgekit.errors import QuantizeError
from edgekit.progress import Progress, Step
from edgekit.quantize.ranges import Histogram
from edgekit.spec import Feeds, IOSpec


@dataclass(slots=True)
class Observed:
    """Histograms of values, and the mean of each channel of values (axis 1, or the last one of matrices)."""

    histograms: dict[str, Histogram] = field(default_factory=dict)
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def mean(self, value: str) -> np.ndarray:
        """The mean of each channel of a value: float64 [channels]."""
        return self.sums[value] / self.counts[value]


def observe(
    model: ir.Model,
    values: Sequence[str],
    calibration: Iterable[Feeds],
    spec: IOSpec,
    folder: Path,
    progress: Progress,
) -> Observed:
    """Run the fp32 model on every batch with `values` as further outputs.

    A batch's activations are let go before the next one, so memory does not grow with the number of samples.

    Raises:
        QuantizeError: there is no calibration data, or a value is NaN or infinite.
        EdgekitError: a batch does not fit the model's inputs.
    """
    given = {tensor.name for tensor in spec.inputs}
    computed = [name for name in values if name not in given]
    session = open_session(_with_outputs(model, computed, folder), threads=0)
    observed = Observed({name: Histogram() for name in values})
    total = len(calibration) if isinstance(calibration, Sequence) else 0
    done = 0
    for feeds in calibration:
        spec.check_feeds(feeds)
        arrays = dict(zip(computed, session.run(computed, dict(feeds)), strict=True) if computed else ())
        for name in values:
            array = np.asarray(feeds[name] if name in given else arrays[name])
            observed.histograms[name].add(array, name)
            axis = array.ndim - 1 if array.ndim < 4 else 1
            others = tuple(index for index in range(array.ndim) if index != axis)
            sums = array.sum(axis=others, dtype=np.float64)
            observed.sums[name] = observed.sums.get(name, 0.0) + sums
            observed.counts[name] = observed.counts.get(name, 0) + array.size // max(len(sums), 1)
        done += 1
        progress(Step("calibrating", done, max(total, done)))
    if not done:
        raise QuantizeError(
            "no calibration data",
            where="quantize",
            rule="at least one batch",
            way_out="some hundred samples are enough",
        )
    return observed


def _with_outputs(model: ir.Model, values: Sequence[str], folder: Path) -> Path:
    twin = model.clone()
    wanted = set(values) - {value.name for value in twin.graph.outputs}
    for node in twin.graph:
        for value in node.outputs:
            if value.name in wanted:
                if value.type is None:
                    value.type = ir.TensorType(ir.DataType.FLOAT)
                twin.graph.outputs.append(value)
    path = folder / "observed.onnx"
    ir.save(twin, path)
    return path
