"""Golden vectors: inputs with the outputs that every device must reproduce, in `edgekit/golden.npz`.

An .npz without pickles, compression or anything that could grow on reading; `numpy.load` opens it too. Its arrays are
named SAMPLE/input/NAME, SAMPLE/output/NAME and, where the sample came from raw input, SAMPLE/raw/KIND: `image` uint8
[H, W, 3] or [H, W], `samples` float32 [n], or `text` uint8 [n], its UTF-8 bytes.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from edgekit.device.manifest import DTYPES, GOLDEN_FILE
from edgekit.errors import BundleError
from edgekit.spec import Feeds, IOSpec

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Golden:
    """One sample: `inputs` by name, the reference's `outputs` by name, and what the inputs came from, if that is known.

    `raw` is an image uint8 [H, W, 3] or [H, W], a recording float32 [n], or a text.

    Outputs are the reference's (the file whose accuracy was validated), not a variant's own: how far each variant lies
    from them is measured when the bundle is written, and is its tolerance.
    """

    inputs: Feeds
    outputs: Mapping[str, np.ndarray]
    raw: np.ndarray | str | None = None


def write_golden(samples: Sequence[Golden]) -> bytes:
    """The bytes of `golden.npz`; equal samples give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, sample in enumerate(samples):
            rows = {f"{index}/input/{name}": value for name, value in sample.inputs.items()}
            rows |= {f"{index}/output/{name}": value for name, value in sample.outputs.items()}
            if sample.raw is not None:
                kind, value = _raw_array(sample.raw)
                rows[f"{index}/raw/{kind}"] = value
            for name, value in rows.items():
                raw = io.BytesIO()
                np.lib.format.write_array(raw, np.asarray(value, order="C"), version=(1, 0), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), raw.getvalue())
    return buffer.getvalue()


def read_golden(data: bytes, spec: IOSpec, samples: int, where: str = GOLDEN_FILE) -> tuple[Golden, ...]:
    """What `write_golden` wrote, checked against the bundle's inputs and outputs.

    Raises:
        BundleError: the file is no such .npz, or its arrays are not these tensors.
    """
    arrays = _arrays(data, where)
    found = tuple(_sample(arrays, index, spec, where) for index in range(samples))
    if arrays:
        _refuse(f"unexpected array {next(iter(arrays))!r}", where, f"the arrays of {samples} samples")
    return found


def _sample(arrays: dict[str, np.ndarray], index: int, spec: IOSpec, where: str) -> Golden:
    sides: list[dict[str, np.ndarray]] = []
    for side, tensors in (("input", spec.inputs), ("output", spec.outputs)):
        values = {tensor.name: arrays.pop(f"{index}/{side}/{tensor.name}", None) for tensor in tensors}
        for tensor in tensors:
            value = values[tensor.name]
            if value is None or not tensor.accepts(value):
                got = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
                _refuse(f"got {got} for {side} {tensor.name!r} of sample {index}", where, f"{tensor}")
        sides.append({name: value for name, value in values.items() if value is not None})
    return Golden(inputs=sides[0], outputs=sides[1], raw=_raw(arrays, index, where))


def _raw_array(raw: np.ndarray | str) -> tuple[str, np.ndarray]:
    """The kind of a raw sample, and it as an array.

    Raises:
        BundleError: it is none of the kinds.
    """
    if isinstance(raw, str):
        return "text", np.frombuffer(raw.encode(), np.uint8)
    if raw.dtype == np.uint8 and raw.ndim in {2, 3}:
        return "image", raw
    if raw.dtype == np.float32 and raw.ndim == 1:
        return "samples", raw
    found = f"got {raw.dtype} {list(raw.shape)}"
    raise BundleError(found, where="golden.raw", rule="uint8 [H, W, 3] or [H, W], float32 [n], or a text")


def _raw(arrays: dict[str, np.ndarray], index: int, where: str) -> np.ndarray | str | None:
    for kind in ("image", "samples", "text"):
        value = arrays.pop(f"{index}/raw/{kind}", None)
        if value is None:
            continue
        place = f"{where}, {index}/raw/{kind}"
        if kind != "text":
            if _raw_array(value)[0] != kind:
                _refuse(f"got {value.dtype} {list(value.shape)}", place, "what the name says")
            return value
        try:
            return value.tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise BundleError(f"no UTF-8: {error}", where=place, rule="a text in UTF-8") from error
    return None


def _arrays(data: bytes, where: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            # Stored entries that do not overlap cannot unpack to more than the file itself.
            if sum(entry.file_size for entry in entries) > len(data):
                _refuse("entries larger than the file", where, "an .npz without compression")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if entry.compress_type != zipfile.ZIP_STORED or name in arrays or name == entry.filename:
                    _refuse(f"entry {entry.filename!r}", where, "uncompressed .npy entries, each name once")
                arrays[name] = _array(archive.read(entry), where)
    except (
        zipfile.BadZipFile,
        ValueError,
        OSError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        OverflowError,
    ) as error:
        raise BundleError(f"not an .npz: {error}", where=where, rule="an .npz without pickles") from error
    return arrays


def _array(raw: bytes, where: str) -> np.ndarray:
    file = io.BytesIO(raw)
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            _refuse("another .npy version", where, "version 1.0")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy mends headers of Python 2, and warns: nobody here writes such.
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, SyntaxError, TypeError, EOFError, RecursionError, MemoryError, Warning) as error:
        raise BundleError(f"not an .npy: {error}", where=where, rule="an array of numbers") from error
    body = raw[file.tell() :]
    count = 1
    for size in shape:
        count *= size
    if fortran or dtype.name not in DTYPES or not dtype.isnative or min(shape, default=0) < 0:
        _refuse(f"an array of {dtype}", where, "numbers in C order")
    if count * dtype.itemsize != len(body):
        _refuse(f"{len(body)} bytes for {dtype} {list(shape)}", where, f"{count * dtype.itemsize} bytes")
    return np.frombuffer(body, dtype).reshape(shape)


def _refuse(problem: str, where: str, rule: str) -> NoReturn:
    raise BundleError(problem, where=where, rule=rule)
