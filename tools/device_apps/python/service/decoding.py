"""From the body of a request to what a model takes; everything in it was written by a stranger."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.device import Model
from edgekit.device.model import Raw
from edgekit.device.processing import SoundPreprocessing, WordpiecePreprocessing
from edgekit.device.processing.image import read_image
from edgekit.device.strict_json import parse
from edgekit.errors import BundleError, DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""What Pillow may decode here; some of its other formats start programs, or are rarely looked at for faults."""


def decoded(model: Model, body: bytes, *, is_image: bool) -> Raw:
    """What `Model.predict` takes.

    Args:
        model: what will be asked.
        body: an image file; or JSON, `{"raw": ...}` (an image [H][W][3] of bytes, samples, or a text, for the bundle's
            preprocessing) or `{"inputs": {NAME: ...}}` (prepared tensors as nested lists).
        is_image: which of the two.

    Raises:
        DataError: the body is neither; the text says what is wrong with it.
    """
    if is_image:
        return read_image(body, FORMATS)
    try:
        data = parse(body, "body")
    except BundleError as error:
        raise DataError(error.problem, where="body", rule=error.rule) from error
    if set(data) == {"raw"}:
        return _raw(model, data["raw"])
    if set(data) == {"inputs"} and isinstance(data["inputs"], dict):
        dtypes = {tensor.name: tensor.dtype for tensor in model.spec.inputs}
        unknown = sorted(set(data["inputs"]) - set(dtypes))
        if unknown:
            raise DataError(f"got input {unknown[0]!r}", where="body.inputs", rule=f"expected {', '.join(dtypes)}")
        return {name: array(value, dtypes[name], f"body.inputs[{name!r}]") for name, value in data["inputs"].items()}
    raise DataError(f"got the keys {sorted(data)}", where="body", rule='{"raw": ...} or {"inputs": {NAME: ...}}')


def _raw(model: Model, value: Any) -> Raw:
    before = model.preprocessing
    if isinstance(before, WordpiecePreprocessing):
        if not isinstance(value, str):
            raise DataError(f"got {type(value).__name__}", where="body.raw", rule="a text")
        return value
    if before is None:
        return array(value, model.spec.inputs[0].dtype, "body.raw")
    return array(value, "float32" if isinstance(before, SoundPreprocessing) else "uint8", "body.raw")


def array(value: Any, dtype: str, where: str) -> np.ndarray:
    """Nested lists of numbers as an array.

    Raises:
        DataError: they are ragged, no numbers, or do not fit the type.
    """
    kind = np.dtype(dtype).kind
    try:
        found = np.array(value)
    except (ValueError, OverflowError) as error:
        raise DataError("not all rows are of one length", where=where, rule="an array as nested lists") from error
    fitting = {"b": "b", "f": "iuf"}.get(kind, "iu")
    if found.dtype.kind not in fitting and found.size:
        raise DataError(f"got {found.dtype}", where=where, rule=f"numbers of type {dtype}")
    if kind in "iu" and found.size:
        limits = np.iinfo(dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise DataError("a number is out of range", where=where, rule=f"{limits.min} to {limits.max} ({dtype})")
    return found.astype(dtype)
