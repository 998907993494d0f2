"""A request: the small graphs that a workstation wants timed, in one file that a device reads with no ONNX package.

A zip with `index.json` and `graphs/KEY.onnx`. It is read as strictly as a bundle: it may come from anywhere.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from edgekit.device.onnx_scan import scan
from edgekit.device.strict_json import MAX_JSON_BYTES, parse
from edgekit.errors import EdgekitError
from edgekit.store import write_atomic

FORMAT, VERSION = "edgekit-request", 1
INDEX = "index.json"
MAX_GRAPHS, MAX_GRAPH_BYTES, MAX_BYTES = 20_000, 256_000_000, 2_000_000_000
MAX_INPUT_NUMBERS, MAX_RANK = 100_000_000, 16
DTYPES = frozenset({"float16", "float32", "float64", "bool", "uint8", "int8", "uint16", "int16", "int32", "int64"})
_KEY = re.compile(r"[a-z0-9]{1,64}")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One graph to be timed.

    Args:
        key: its name in the costs.
        graph: an ONNX file.
        inputs: numpy's name of the type, and the sizes, of each input in order.
    """

    key: str
    graph: bytes
    inputs: tuple[tuple[str, tuple[int, ...]], ...]


def pack(graphs: Sequence[Timed]) -> bytes:
    """A request as bytes; the same ones for the same graphs."""
    file = io.BytesIO()
    index = {
        "format": FORMAT,
        "version": VERSION,
        "graphs": [
            {"key": each.key, "inputs": [[dtype, list(sizes)] for dtype, sizes in each.inputs]} for each in graphs
        ],
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry(INDEX), json.dumps(index))
        for each in graphs:
            archive.writestr(_entry(_name(each.key)), each.graph)
    return file.getvalue()


def write_request(path: Path, graphs: Sequence[Timed]) -> None:
    """Write a request, atomically.

    Raises:
        StoreError: the file cannot be written.
    """
    write_atomic(path, pack(graphs))


def read_request(path: Path) -> tuple[Timed, ...]:
    """The graphs of a request.

    Raises:
        EdgekitError: there is no such file; it is damaged, too large or of another version; it holds other files than
            its index names; or a graph could reach beyond itself (see `edgekit.device.onnx_scan`).
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive, where)
    except OSError as error:
        raise EdgekitError(
            f"cannot read: {error.strerror or error}",
            where=where,
            rule="a request",
            way_out="`edgekit profile MODEL.onnx --request FILE` makes one",
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError, zlib.error) as error:
        raise EdgekitError(
            f"damaged: {error}", where=where, rule="a request, whole", way_out="copy it again, or make it again"
        ) from error


def _read(archive: zipfile.ZipFile, where: str) -> tuple[Timed, ...]:
    entries = archive.infolist()
    sizes: dict[str, int] = {}
    for entry in entries:
        if entry.filename in sizes:
            _refuse(f"{entry.filename!r} stands there twice", where, "each file once")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _refuse(f"{entry.filename!r} is encrypted or packed otherwise", where, "stored or deflated files")
        sizes[entry.filename] = entry.file_size
    if len(entries) > MAX_GRAPHS + 1 or sum(sizes.values()) > MAX_BYTES:
        _refuse(f"{len(entries)} files, {sum(sizes.values())} bytes", where, f"{MAX_GRAPHS} files, {MAX_BYTES} bytes")
    if sizes.get(INDEX, math.inf) > MAX_JSON_BYTES:
        _refuse("no index, or too large", where, f"{INDEX} of at most {MAX_JSON_BYTES} bytes")
    index = parse(_content(archive, INDEX, sizes), f"{where}: {INDEX}")
    if (index.get("format"), index.get("version")) != (FORMAT, VERSION):
        _refuse("no request of this version", where, f"{FORMAT} of version {VERSION}")
    rows = index.get("graphs")
    if not isinstance(rows, list):
        _refuse(f"graphs: got {type(rows).__name__}", where, "a list")
    keys = [_key(row, where) for row in rows]
    expected = {INDEX, *map(_name, keys)}
    if len(expected) != len(keys) + 1 or expected != set(sizes):
        _refuse("the files are not those of the index", where, "one file for each graph, and no other")
    return tuple(
        _graph(archive, key, row, sizes, f"{where}: {_name(key)}") for key, row in zip(keys, rows, strict=True)
    )


def _key(row: object, where: str) -> str:
    key = row.get("key") if isinstance(row, Mapping) else None
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        _refuse(f"key {key!r}", where, "up to 64 small letters and digits")
    return key


def _graph(archive: zipfile.ZipFile, key: str, row: Mapping[str, Any], sizes: Mapping[str, int], where: str) -> Timed:
    if sizes[_name(key)] > MAX_GRAPH_BYTES:
        _refuse(f"{sizes[_name(key)]} bytes", where, f"at most {MAX_GRAPH_BYTES} bytes")
    data = _content(archive, _name(key), sizes)
    scan(data, where)
    inputs = row.get("inputs")
    if not isinstance(inputs, list):
        _refuse(f"inputs: got {inputs!r}", where, "a list of [type, sizes]")
    return Timed(key=key, graph=data, inputs=tuple(_input(each, where) for each in inputs))


def _input(given: Any, where: str) -> tuple[str, tuple[int, ...]]:
    pair = isinstance(given, list) and len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], list)
    sizes: list[Any] = given[1] if pair else []
    fits = pair and given[0] in DTYPES and len(sizes) <= MAX_RANK and all(type(n) is int and n >= 0 for n in sizes)
    if not fits or math.prod(sizes) > MAX_INPUT_NUMBERS:
        _refuse(f"input {given!r}", where, f"[type, sizes] with at most {MAX_INPUT_NUMBERS} numbers")
    return given[0], tuple(sizes)


def _content(archive: zipfile.ZipFile, name: str, sizes: Mapping[str, int]) -> bytes:
    with archive.open(name) as file:
        data = file.read(sizes[name] + 1)
    if len(data) != sizes[name]:
        _refuse(f"{name} is not as long as it says", archive.filename or "", "files of the length that they declare")
    return data


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _name(key: str) -> str:
    return f"graphs/{key}.onnx"


def _refuse(problem: str, where: str, rule: str) -> NoReturn:
    raise EdgekitError(
        problem, where=where, rule=rule, way_out="make it again with `edgekit profile MODEL.onnx --request FILE`"
    )
