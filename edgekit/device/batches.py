"""Which models may be run on several inputs at once, and which inputs fit together."""

from __future__ import annotations

import numpy as np

from edgekit.device.model import Model, max_difference
from edgekit.device.onnx_scan import scan
from edgekit.errors import DataError
from edgekit.spec import Feeds, TensorSpec

COUPLING = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"})
"""Operators that take one scale from all samples of a batch: a neighbour would change the answer."""

REPEATED = 1e-4
"""How far a batch may lie from single runs where no golden vectors tell, as a fraction of the largest output."""


def why_single(model: Model, max_batch: int) -> str:
    """Why a model's inputs are not put into batches, in words; empty where they can be.

    They can where the first dimension is open on every input and output, nothing takes one scale from a whole batch,
    and a trial batch of different samples gives what single runs give: rows of their own, within the tolerance that the
    bundle allows between machines (or `REPEATED`).
    """
    fixed = [tensor for tensor in (*model.spec.inputs, *model.spec.outputs) if not _is_open(tensor)]
    if fixed:
        return f"the first size of {fixed[0].name!r}, {fixed[0]}, is fixed"
    if len({tensor.shape[0] for tensor in model.spec.inputs}) > 1:
        return "the inputs' first sizes are not the same"
    found = COUPLING & set(scan(model.opened.read(model.variant.file), model.variant.file).operators)
    if found:
        return f"{min(found)} takes one scale from a whole batch, so neighbours would change an answer"
    try:
        return _tried(model, _different(model, min(max_batch, 4)))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's own exceptions have no common base but this one
        return f"the model does not run on a batch ({str(error).splitlines()[0][:200]})"


def _tried(model: Model, samples: list[Feeds]) -> str:
    alone = [model.run(sample) for sample in samples]
    together = model.run({name: np.concatenate([each[name] for each in samples]) for name in samples[0]})
    rows = [rows_of(sample) for sample in samples]
    for tensor in model.spec.outputs:
        expected = [outputs[tensor.name] for outputs in alone]
        if [len(value) for value in expected] != rows or len(together[tensor.name]) != sum(rows):
            return f"output {tensor.name!r} has not a row for each row of the input"
        difference, allowed = _apart(model, tensor, together[tensor.name], np.concatenate(expected))
        if not difference <= allowed:
            return (
                f"in a batch, output {tensor.name!r} differs by {difference:.3g} from single runs, more than "
                f"{allowed:.3g}"
            )
    return ""


def _is_open(tensor: TensorSpec) -> bool:
    return bool(tensor.shape) and isinstance(tensor.shape[0], str)


def _different(model: Model, count: int) -> list[Feeds]:
    """`count` inputs of one size that are not all the same: a batch of equal rows would hide that rows mix."""
    first, *more = [golden.inputs for golden in model.golden()] or [model.example()]
    backwards = {name: np.flip(value, tuple(range(1, value.ndim))) for name, value in first.items()}
    found = [first, *(each for each in more if fit(first, each)), backwards]
    return [found[index % len(found)] for index in range(count)]


def fit(first: Feeds, second: Feeds) -> bool:
    """Whether both can be rows of one batch."""
    return all(value.shape[1:] == second[name].shape[1:] for name, value in first.items())


def _apart(model: Model, tensor: TensorSpec, together: np.ndarray, alone: np.ndarray) -> tuple[float, float]:
    """How far a batch lies from single runs, and how far it may: for other sizes kernels add in another order."""
    size = float(np.max(np.abs(alone.astype(np.float64)), initial=0.0))
    tolerance = float(model.variant.tolerance.get(tensor.name, 0.0))
    return max_difference(together, alone), max(REPEATED * max(1.0, size), tolerance)


def rows_of(feeds: Feeds) -> int:
    """How many rows of a batch these are.

    Raises:
        DataError: not the same number in each input; between neighbours, they would be mixed up.
    """
    sizes = {len(value) for value in feeds.values()}
    if len(sizes) > 1:
        raise DataError(f"inputs of {sorted(sizes)} samples", where="submit", rule="the same number in each input")
    return sizes.pop()
