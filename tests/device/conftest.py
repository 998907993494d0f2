"""Small ONNX models and bundles of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle import Golden, Variant, write_bundle
from edgekit.device import ImagePreprocessing
from edgekit.spec import IOSpec, TensorSpec

CREATED = datetime(2026, 1, 31, 12, tzinfo=UTC)
SPEC = IOSpec(
    inputs=(TensorSpec(name="image", dtype="float32", shape=("batch", 3, 4, 4)),),
    outputs=(TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),),
)
PREPARE = ImagePreprocessing(size=(4, 4), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
WEIGHTS = np.random.default_rng(0).standard_normal((48, 3)).astype(np.float32)


def classifier(scale: float = 1.0) -> onnx.ModelProto:
    """scores [batch, 3] = flatten(image [batch, 3, 4, 4]) @ (scale * WEIGHTS)."""
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(scale * WEIGHTS, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def expected(image: np.ndarray) -> np.ndarray:
    return image.reshape(len(image), -1) @ WEIGHTS


def golden(samples: int = 2) -> list[Golden]:
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (6, 5, 3), dtype=np.uint8) for _ in range(samples)]
    inputs = [PREPARE.apply(image) for image in images]
    return [
        Golden(inputs={"image": value}, outputs={"scores": expected(value)}, raw=image)
        for image, value in zip(images, inputs, strict=True)
    ]


@pytest.fixture
def reference() -> SimpleNamespace:
    """What the bundles are made of."""
    return SimpleNamespace(spec=SPEC, prepare=PREPARE, expected=expected, golden=golden, classifier=classifier)


@pytest.fixture
def reseal() -> Callable[..., None]:
    """Change a bundle's files and give it digests that fit, as an attacker can."""

    def change(folder: Path, edit: Callable[[dict], object] | None = None, **files: bytes) -> None:
        path = folder / "edgekit/bundle.json"
        about = json.loads(path.read_text())
        for name, data in files.items():
            (folder / name).write_bytes(data)
        if edit:
            edit(about)
        for name, entry in about["files"].items():
            if (folder / name).is_file():
                data = (folder / name).read_bytes()
                entry.update(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        path.write_text(json.dumps(about))

    return change


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "classifier.onnx"
    onnx.save(classifier(), path)
    return path


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle of two variants, `near` being 1 % off."""

    def make(folder: str = "bundle", **changes: object) -> Path:
        for name, scale in (("exact", 1.0), ("near", 1.01)):
            onnx.save(classifier(scale), tmp_path / f"{name}.onnx")
        arguments: dict[str, object] = {
            "name": "shapes",
            "variants": {
                "near": Variant(path=tmp_path / "near.onnx", precision="int8", target="arm64"),
                "exact": Variant(path=tmp_path / "exact.onnx"),
            },
            "spec": SPEC,
            "preprocessing": PREPARE,
            "labels": ("circle", "square", "star"),
            "metrics": {"top-1 accuracy": 91.5},
            "provenance": {"source": "test"},
            "golden": golden(),
            "created": CREATED,
        }
        return write_bundle(tmp_path / folder, **{**arguments, **changes})

    return make


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, on a processor for which `exact` is the only one that fits."""
    monkeypatch.setattr("edgekit.device.model.isa_target", lambda: "x86-vnni")
    return make_bundle()
