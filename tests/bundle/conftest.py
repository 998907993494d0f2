"""A small model with two outputs' worth of everything a bundle can hold."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.bundle import Variant, record_golden, write_bundle
from edgekit.spec import IOSpec, TensorSpec


@pytest.fixture
def spec() -> IOSpec:
    return IOSpec(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 4)),),
    )


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save y = operator(x) * scale."""

    def make(name: str = "model.onnx", *, operator: str = "Softmax", scale: float = 1.0, output: str = "y") -> Path:
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            [helper.make_node(operator, ["x"], ["raw"]), helper.make_node("Mul", ["raw", "scale"], [output])],
            "g",
            [value("x", TensorProto.FLOAT, ["batch", 4])],
            [value(output, TensorProto.FLOAT, ["batch", 4])],
            [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale])],
        )
        path = tmp_path / name
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
        return path

    return make


@pytest.fixture
def feeds() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"x": random.standard_normal((1, 4)).astype(np.float32)} for _ in range(3)]


@pytest.fixture
def write(tmp_path: Path, save, spec, feeds) -> Callable[..., Path]:
    """Write a bundle with one variant; keywords replace arguments."""

    def make(folder: str = "bundle", **changes: object) -> Path:
        path = save()
        arguments: dict[str, object] = {
            "name": "digits",
            "variants": {"cpu-fp32": Variant(path=path)},
            "spec": spec,
            "labels": ("a", "b", "c", "d"),
            "metrics": {"top-1 accuracy": {"value": 90.5, "low": 90.0, "high": 91.0, "n": 1000}},
            "provenance": {"source": "here"},
            "golden": record_golden(path, feeds),
            "created": datetime(2026, 1, 31, tzinfo=UTC),
        }
        return write_bundle(tmp_path / folder, **{**arguments, **changes})

    return make
