from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edgekit.export import Exported


@pytest.fixture
def operators() -> Callable[[Path], Counter[str]]:
    """The operators of a file, counted by the onnx package; the file is checked on the way."""

    def count(path: Path) -> Counter[str]:
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        return Counter(node.op_type for node in model.graph.node)

    return count


@pytest.fixture
def run() -> Callable[..., list[np.ndarray]]:
    """Run an exported file by onnxruntime itself."""

    def call(exported: Exported, *tensors: torch.Tensor) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        return session.run(None, dict(zip(names, [tensor.numpy() for tensor in tensors], strict=True)))

    return call


@pytest.fixture
def digest() -> Callable[[nn.Module], str]:
    def of(model: nn.Module) -> str:
        sha = hashlib.sha256(str(model).encode() + str(model.training).encode())
        for name, value in model.state_dict().items():
            sha.update(name.encode() + value.numpy().tobytes())
        return sha.hexdigest()

    return of
