"""The int8 graph on made-up scales, against the one that calibration leads to."""

from collections import Counter

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from torch import nn

from edgekit.quantize import quantize, sketch
from edgekit.quantize.graph import load


def kernels(model, path):
    """How often each kernel, with the shapes that it reads, stands in the graph that ONNX Runtime makes of it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path), 3
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = ir.load(path).graph
    return Counter(
        (node.op_type, *(str(v.const_value.shape) for v in node.inputs if v is not None and v.const_value is not None))
        for node in graph
    )


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 16, 3, groups=16),
        nn.ReLU6(), nn.Conv2d(16, 8, 1), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


def capped():
    """As MobileNets are: more ReLU6 than one, and another bound."""
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU6()]
    for _ in range(3):
        layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6(), nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)]
    return nn.Sequential(*layers, nn.Hardtanh(0.0, 1.0), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def products():
    return nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8), nn.LayerNorm(8))


@pytest.mark.parametrize(("make", "shape"), [(convolutions, (3, 12, 12)), (capped, (3, 12, 12)), (products, (6, 8))])
def test_it_runs_on_the_kernels_of_the_real_file(fp32, make, shape, tmp_path):
    exported = fp32(make().eval(), *shape)
    name = exported.spec.inputs[0].name
    feeds = [{name: np.random.default_rng(i).normal(size=(4, *shape)).astype(np.float32)} for i in range(4)]
    real = quantize(exported.path, feeds, tmp_path / "int8.onnx", spec=exported.spec, target="x86-avx2").path
    source = load(exported.path)
    made = ir.to_proto(sketch(source, "x86-avx2")).SerializeToString()
    assert kernels(made, tmp_path / "a.onnx") == kernels(str(real), tmp_path / "b.onnx")
    assert any("Integer" in op or "QLinear" in op or "Quantize" in op for op, *_ in kernels(made, tmp_path / "a.onnx"))
    assert not any("Quantize" in node.op_type for node in source.graph)
