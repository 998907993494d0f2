"""An ONNX file of anybody's, read with care: its sizes are checked, and no other file is opened for it."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath

import onnx
from onnx import inliner

from edgekit.errors import EdgekitError

LARGEST_FILE = 1 << 31
"""Bytes; protocol buffers end there, so larger models keep their weights in files beside."""
_BITS: dict[int, int] = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT16: 16,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.COMPLEX64: 64,
    onnx.TensorProto.COMPLEX128: 128,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.FLOAT8E4M3FN: 8,
    onnx.TensorProto.FLOAT8E4M3FNUZ: 8,
    onnx.TensorProto.FLOAT8E5M2: 8,
    onnx.TensorProto.FLOAT8E5M2FNUZ: 8,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.FLOAT4E2M1: 4,
}


def read(path: Path) -> onnx.ModelProto:
    """The model in a file; functions that it defines itself are written out, external data are not opened.

    Raises:
        EdgekitError: there is no such file, it is too large, no ONNX, or a tensor is not as large as it says.
    """
    if not path.is_file():
        raise EdgekitError(
            f"no file {path}", where="command line", rule="an ONNX file", way_out="`edgekit export` writes one"
        )
    if path.stat().st_size > LARGEST_FILE:
        raise EdgekitError(
            f"{path.stat().st_size} bytes",
            where=str(path),
            rule=f"an ONNX file has at most {LARGEST_FILE}",
            way_out="save it with external data",
        )
    try:
        model = onnx.load(path, load_external_data=False)
        if model.functions:
            model = inliner.inline_local_functions(model)
    except Exception as error:
        raise EdgekitError(
            f"not an ONNX file: {type(error).__name__}",
            where=str(path),
            rule="a whole ONNX file",
            way_out="get or export it again",
        ) from error
    if not model.HasField("graph") or not model.opset_import:
        raise EdgekitError(
            "not an ONNX file: no graph or no operator set",
            where=str(path),
            rule="a whole ONNX file",
            way_out="get or export it again",
        )
    for tensor in model.graph.initializer:
        _check(tensor, str(path))
    return model


def bytes_of(tensor: onnx.TensorProto) -> int:
    """What the numbers of a tensor take; of texts, their bytes.

    >>> bytes_of(onnx.TensorProto(data_type=onnx.TensorProto.INT4, dims=[3]))
    2
    """
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    return -(-int(math.prod(tensor.dims)) * _BITS.get(tensor.data_type, 0) // 8)


def type_name(kind: int) -> str:
    """An element type by the name that numpy has for it.

    >>> type_name(onnx.TensorProto.FLOAT), type_name(onnx.TensorProto.DOUBLE), type_name(0)
    ('float32', 'float64', 'undefined')
    """
    name = onnx.TensorProto.DataType.Name(kind).lower() if kind in onnx.TensorProto.DataType.values() else "undefined"
    return {"float": "float32", "double": "float64"}.get(name, name)


def external_files(model: onnx.ModelProto, folder: Path) -> dict[str, int | None]:
    """Files in which tensors keep their numbers, and their bytes.

    None where there is none of that name, or where it would lie outside of the folder: no such file is looked at.
    """
    names = {
        entry.value
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {name: _size(folder, name) for name in sorted(names)}


def _size(folder: Path, name: str) -> int | None:
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\0" in name:
        return None
    path = folder / place
    return path.stat().st_size if path.is_file() and not path.is_symlink() else None


def _check(tensor: onnx.TensorProto, where: str) -> None:
    """That a tensor has as many bytes as its sizes ask for, and no size below 0."""
    if any(size < 0 for size in tensor.dims):
        raise EdgekitError(
            f"tensor {tensor.name!r} has the sizes {list(tensor.dims)}",
            where=where,
            rule="sizes from 0 up",
            way_out="do not trust the file",
        )
    wanted = bytes_of(tensor)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != wanted and tensor.data_type in _BITS:
        raise EdgekitError(
            f"tensor {tensor.name!r} has {len(tensor.raw_data)} bytes",
            where=where,
            rule=f"{wanted} bytes for {type_name(tensor.data_type)} {list(tensor.dims)}",
            way_out="get the file again, or do not trust it",
        )
