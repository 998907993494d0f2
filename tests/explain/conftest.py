from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.utils.data import TensorDataset

from edgekit.spec import IOSpec, TensorSpec


def linear_file(path: Path, weight: np.ndarray, shape: tuple[int, ...], dtype: int = TensorProto.FLOAT) -> Path:
    """y = flatten(x) @ weight, written by hand: a score whose occlusion has a closed form."""
    nodes = [
        helper.make_node("Flatten", ["f" if dtype != TensorProto.FLOAT else "x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    if dtype != TensorProto.FLOAT:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", dtype, ["batch", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def spec_for(shape: tuple[int, ...], outputs: int, dtype: str = "float32") -> IOSpec:
    return IOSpec(
        inputs=(TensorSpec(name="x", dtype=dtype, shape=("batch", *shape)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", outputs)),),
    )


@pytest.fixture
def linear():
    return linear_file


@pytest.fixture
def io():
    return spec_for


@pytest.fixture
def labelled():
    """Random inputs of a shape, labelled by what flatten(x) @ weight says."""

    def make(weight: np.ndarray, shape: tuple[int, ...], n: int = 12) -> TensorDataset:
        x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(3))
        return TensorDataset(x, (x.reshape(n, -1) @ torch.from_numpy(weight).float()).argmax(1))

    return make
