"""Files for TensorRT: where Q and DQ stand, and what they compute."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgekit.device.session import open_session
from edgekit.errors import QuantizeError
from edgekit.quantize import quantize
from edgekit.quantize.simulation import steps_apart


class Graph:
    """A file's nodes by what they make, and its constants."""

    def __init__(self, path) -> None:
        self.graph = onnx.load(path).graph
        self.made = {output: node for node in self.graph.node for output in node.output}
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.graph.initializer}

    def of(self, *kinds):
        return [node for node in self.graph.node if node.op_type in kinds]

    def maker(self, value):
        return self.made[value].op_type if value in self.made else None


@pytest.fixture(scope="module")
def quantized(resnet, draw, tmp_path_factory):
    path = tmp_path_factory.mktemp("tensorrt") / "model.onnx"
    return quantize(resnet.path, draw(resnet), path, spec=resnet.spec, target="tensorrt")


@pytest.fixture(scope="module")
def network(quantized):
    return Graph(quantized.path)


def test_every_integer_is_symmetric(network):
    both = network.of("QuantizeLinear", "DequantizeLinear")
    zeros = [network.constants[node.input[2]] for node in both]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.int8)}
    assert not any(zero.any() for zero in zeros)
    stored = [array for array in network.constants.values() if array.dtype == np.int8 and array.ndim > 1]
    # The stem, four convolutions, the shortcut and the head; each channel's scale brings it to 127.
    assert len(stored) == 7
    assert all(np.abs(array.astype(int)).max() == 127 for array in stored)
    assert not [array for array in network.constants.values() if array.dtype == np.int32]


def test_weighted_operators_read_integers_and_keep_bias_and_result_in_fp32(network):
    convolutions, (head,) = network.of("Conv"), network.of("Gemm")
    assert len(convolutions) == 6
    for node in (*convolutions, head):
        assert [network.maker(value) for value in node.input[:2]] == ["DequantizeLinear", "DequantizeLinear"]
        weight = network.made[node.input[1]]
        assert network.constants[weight.input[1]].shape == (len(network.constants[weight.input[0]]),)
        assert [network.constants[bias].dtype for bias in node.input[2:]] in ([], [np.float32])
    readers = {value: node.op_type for node in network.graph.node for value in node.input}
    # The last convolution of the second block comes before its shortcut, and is that addition's residual input.
    assert sorted(readers[node.output[0]] for node in convolutions) == ["Add", "Add", "QuantizeLinear"] + ["Relu"] * 3
    assert head.output[0] == network.graph.output[0].name


def test_an_addition_reads_the_residual_alone_as_integers(network):
    additions = network.of("Add")
    assert len(additions) == 2
    for node in additions:
        assert sorted(network.maker(value) for value in node.input) == ["Conv", "DequantizeLinear"]
    assert all(network.maker(node.input[0]) in ("Conv", "Add") for node in network.of("Relu"))
    (pool,) = network.of("GlobalAveragePool")
    assert network.maker(pool.input[0]) == "DequantizeLinear"


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.a(x))
        return self.head(F.relu(self.b(x) + x).mean((2, 3)))


def test_the_file_computes_what_a_simulation_in_pytorch_does(fp32, int8, draw):
    """The whole network by hand in double precision: rounded weights, rounded values at five places, fp32 biases."""
    torch.manual_seed(3)
    net = Small()
    source = fp32(net, 4, 8, 8)
    done = int8(source, target="tensorrt", weights="max", equalization=False, bias_correction=False)
    scales = {name: scale.scale for name, scale in done.plan.activations.items()}
    assert len(scales) == 4
    entry, first, second, mean = [scales[name] for name in order(done, source)]

    def rounded(x, scale):
        return torch.clamp(torch.round(x / np.float64(np.float32(scale))), -128, 127) * np.float64(np.float32(scale))

    def weight(layer):
        value = layer.weight.detach().double()
        scale = (value.abs().flatten(1).amax(1) / 127).reshape(-1, *[1] * (value.ndim - 1))
        return torch.round(value / scale) * scale, layer.bias.detach().double()

    (feeds,) = draw(source, seed=9, batches=1)
    x = rounded(torch.from_numpy(next(iter(feeds.values()))).double(), entry)
    x = rounded(F.relu(F.conv2d(x, *weight(net.a), padding=1)), first)
    x = rounded(F.relu(F.conv2d(x, *weight(net.b), padding=1) + x), second)
    want = F.linear(rounded(x.mean((2, 3)), mean), *weight(net.head)).numpy()
    have = open_session(done.path, optimize=False).run(None, feeds)[0]
    # fp32 sums may round a value to the next integer.
    assert np.abs(want - have).max() <= 0.02 * np.abs(want).max()
    assert np.median(np.abs(want - have)) <= 1e-5 * np.abs(want).max()


def order(done, source):
    """The quantized values in the order in which the network makes them."""
    values = [
        source.spec.inputs[0].name,
        *(value for node in onnx.load(source.path).graph.node for value in node.output),
    ]
    return [value for value in values if value in done.plan.activations]


def test_an_evaluator_in_plain_numpy_and_the_kernels_of_the_cpu_agree(resnet, quantized, draw):
    (feeds,) = draw(resnet, seed=5, batches=1)
    feeds = {name: array[:4] for name, array in feeds.items()}
    want = ReferenceEvaluator(onnx.load(quantized.path)).run(None, feeds)[0]
    have = open_session(quantized.path, optimize=False).run(None, feeds)[0]
    assert np.abs(want - have).max() <= 0.02 * np.abs(want).max()
    assert max(steps_apart(quantized.path, feeds).values()) <= 1


def test_nothing_is_said_of_kernels_that_this_machine_cannot_run(quantized):
    assert (quantized.kernels, quantized.seen_here, quantized.scheme) == ({}, "not run on such a device", "static")
    rows = {node.name: node for node in quantized.nodes}
    int8_rows = [node for node in rows.values() if node.precision == "int8"]
    assert all(node.reason.endswith("not run on such a device") for node in int8_rows)
    assert sum(node.op == "Conv" for node in int8_rows) == 6
    assert {node.reason for node in rows.values() if node.op == "Reshape"} == {
        "it only moves values: TensorRT moves Q and DQ across it"
    }
    assert all(node.fp32_us is None for node in rows.values())


class Branches(nn.Module):
    """The later of the two convolutions is fused with the addition, and a third one reads it as integers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(8, 8, 1) for _ in range(4))

    def forward(self, x):
        a = self.a(x)
        b = self.b(x)
        return self.c(a + b), self.d(b)


def test_what_is_fused_with_an_addition_stays_exact_for_it_alone(fp32, int8):
    torch.manual_seed(4)
    network = Graph(int8(fp32(Branches(), 8, 5, 5), target="tensorrt").path)
    (addition,) = network.of("Add")
    assert sorted(network.maker(value) for value in addition.input) == ["Conv", "DequantizeLinear"]
    (exact,) = [value for value in addition.input if network.maker(value) == "Conv"]
    readers = [node.op_type for node in network.graph.node if exact in node.input]
    assert sorted(readers) == ["Add", "QuantizeLinear"]


def test_a_sum_that_nothing_reads_in_int8_is_left_alone(fp32, int8):
    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            x = self.a(x)
            return torch.tanh(self.b(x) + x)

    torch.manual_seed(5)
    done = int8(fp32(Ends(), 8, 5, 5), target="tensorrt")
    (addition,) = [node for node in done.nodes if node.op == "Add"]
    assert (addition.precision, addition.reason) == ("fp32", "nothing reads its sum in int8")
    assert {Graph(done.path).maker(value) for value in Graph(done.path).of("Add")[0].input} == {"Conv"}


def test_a_node_stays_in_fp32_when_asked_and_nothing_is_dynamic(resnet, int8):
    name = next(node.name for node in onnx.load(resnet.path).graph.node if node.op_type == "Conv")
    done = int8(resnet, target="tensorrt", keep_float=[name])
    assert {node.name: node.reason for node in done.nodes}[name] == "it was asked to stay in fp32"
    with pytest.raises(QuantizeError, match="TensorRT has no dynamic int8"):
        int8(resnet, target="tensorrt", scheme="dynamic")
