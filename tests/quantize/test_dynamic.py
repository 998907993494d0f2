"""Dynamic int8 for recurrent networks and Transformers."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgekit.errors import QuantizeError
from tests.quantize.conftest import Encoder, Recurrent


def close(run, source, done, draw):
    (feeds,) = draw(source, seed=9, batches=1)
    want, have = run(source.path, feeds), run(done.path, feeds)
    return np.abs(want - have).max() <= 0.05 * np.abs(want).max()


def test_an_lstm_runs_in_int8(fp32, int8, run, draw, kernels):
    source = fp32(Recurrent(nn.LSTM, 64), 20, 12)
    done = int8(source)
    assert done.scheme == "dynamic"
    assert kernels(done.path)["DynamicQuantizeLSTM"] == 1
    assert kernels(done.path)["LSTM"] == 0
    assert close(run, source, done, draw)
    assert done.path.stat().st_size < 0.4 * source.path.stat().st_size


def test_an_lstm_too_narrow_to_gain_stays_in_fp32(fp32, int8, kernels):
    done = int8(fp32(Recurrent(nn.LSTM, 32), 20, 12))
    assert kernels(done.path)["LSTM"] == 1
    reasons = {node.op: node.reason for node in done.nodes}
    assert reasons["LSTM"] == "with a hidden size below 48 int8 is slower than fp32"


def test_a_gru_says_why_it_does_not(fp32, int8):
    done = int8(fp32(Recurrent(nn.GRU, 64), 20, 12))
    assert {node.op: node.reason for node in done.nodes}["GRU"] == "ONNX Runtime has no int8 kernel for GRU"
    assert {node.op: node.precision for node in done.nodes}["Gemm"] == "int8"


def test_a_transformers_products_run_in_int8(fp32, int8, run, draw, kernels):
    source = fp32(Encoder(), 10, 32)
    done = int8(source)
    found = kernels(done.path)
    # Two layers of query-key-value, output and two of the MLP, and the head.
    products = found["DynamicQuantizeMatMul"] + found["MatMulIntegerToFloat"] + found["QAttention"]
    assert products == 9
    assert found["MatMulInteger"] == 0
    assert close(run, source, done, draw)
    computed = {node.reason for node in done.nodes if node.op == "MatMul" and node.precision == "fp32"}
    assert computed <= {"both sides are computed"}


@pytest.mark.parametrize("outlier", [1.0, 20.0])
def test_columns_share_a_scale_unless_one_of_them_is_far_larger(fp32, int8, run, draw, outlier):
    net = Encoder()
    with torch.no_grad():
        net.encoder.layers[0].linear1.weight[3] *= outlier
    source = fp32(net, 10, 32)
    done = int8(source)
    names = [node.name for node in done.nodes if "linear1" in node.name and node.precision == "int8"]
    scales = {t.name: numpy_helper.to_array(t) for t in onnx.load(done.path).graph.initializer if "scale" in t.name}
    first = next(scale for name, scale in scales.items() if name.startswith(min(names)))
    assert first.ndim == (0 if outlier == 1.0 else 1)
    assert close(run, source, done, draw)


def test_a_convolution_is_never_quantized_dynamically(fp32, int8, resnet):
    with pytest.raises(QuantizeError, match="nothing in the graph can run in int8"):
        int8(fp32(nn.Sequential(nn.Conv2d(16, 8, 3), nn.ReLU()), 16, 6, 6), scheme="dynamic")
    done = int8(resnet, scheme="dynamic")
    assert all(node.precision == "fp32" for node in done.nodes if node.op == "Conv")


def test_the_scheme_follows_the_arithmetic(fp32, int8, resnet):
    assert int8(resnet).scheme == "static"
    assert int8(fp32(Encoder(), 10, 32)).scheme == "dynamic"
