"""The ONNX file itself: what it says about itself, its contract, and how it is written whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch

from edgekit.device.session import open_session, runtime
from edgekit.store import write_atomic, writing

PRODUCER = "edgekit"

SINGLE_FILE_BYTES = 1_800_000_000
"""Weights beyond this go to `NAME.data` beside the file: protobuf ends at 2 GiB."""

T = TypeVar("T")
Runner = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
"""Runs the ONNX file on arrays in the order of its inputs."""


def describe(model: ir.Model, metadata: Mapping[str, str]) -> None:
    """Replace what the exporters wrote (traces with the user's paths) by who made the file from what, in place."""
    passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.clear()
    model.producer_name, model.producer_version = PRODUCER, _version()
    model.doc_string = None
    model.graph.name = metadata.get("name", "model")
    said = {
        "producer": PRODUCER,
        "edgekit_version": _version(),
        "torch_version": str(torch.__version__),
        "source": "PyTorch",
    }
    model.metadata_props.update({**said, **metadata})


def publish(model: ir.Model, path: Path, gate: Callable[[Runner], T]) -> T:
    """Write `model` to `path` once `gate` has passed it, and return what the gate said.

    The gate gets a function that runs exactly the bytes that are written. When it raises, what was at `path` is
    untouched.

    Raises:
        StoreError: the file cannot be written.
    """
    if sum(_bytes(value) for value in model.graph.initializers.values()) > SINGLE_FILE_BYTES:
        return _publish_in_two(model, path, gate)
    content = ir.serde.serialize_model(model).SerializeToString()
    verdict = gate(_runner(content, model))
    write_atomic(path, content)
    return verdict


def _publish_in_two(model: ir.Model, path: Path, gate: Callable[[Runner], T]) -> T:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The graph holds the name of its data file, so both get their final names, in a folder that soon goes.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary, data = Path(folder) / path.name, f"{path.name}.data"
            ir.save(model, temporary, format="protobuf", external_data=data)
            verdict = gate(_runner(temporary, model))
            (Path(folder) / data).replace(path.with_name(data))
            temporary.replace(path)
    return verdict


def _runner(source: bytes | Path, model: ir.Model) -> Runner:
    session = open_session(source, threads=torch.get_num_threads())
    names = [str(value.name) for value in model.graph.inputs]
    options = runtime().RunOptions()
    options.log_severity_level = 4  # What fails is raised; it need not be printed, too.

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        results: Sequence[np.ndarray] = session.run(None, dict(zip(names, arrays, strict=True)), options)
        return results

    return run


def _bytes(value: ir.Value) -> int:
    return value.const_value.nbytes if value.const_value is not None else 0


def _version() -> str:
    try:
        return version("edgekit")
    except PackageNotFoundError:  # Run from a checkout that is not installed.
        return "0+checkout"
