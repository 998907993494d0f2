"""Weights in 8 and 4 bits, against numpy and against ONNX Runtime's own quantizer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer
from torch import nn

from edgekit.errors import QuantizeError
from edgekit.export import spec_of
from edgekit.quantize import quantize
from edgekit.quantize.storage import blocks_of, nibbles

HALF = {8: 128, 4: 8}


class Every(nn.Module):
    """An operator of each kind that has weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(8, 48, 3, padding=1), nn.ConvTranspose2d(48, 12, 2, 2)
        self.lstm, self.gru = nn.LSTM(24, 32, bidirectional=True, batch_first=True), nn.GRU(64, 24, batch_first=True)
        self.mix, self.head = nn.Parameter(torch.randn(24, 50)), nn.Linear(50, 40)

    def forward(self, x):
        x = self.up(torch.relu(self.conv(x))).flatten(2)
        x = self.gru(self.lstm(x[:, :, :24])[0])[0]
        return self.head(torch.relu(x @ self.mix))


@pytest.fixture(scope="module")
def every(fp32):
    torch.manual_seed(0)
    return fp32(Every(), 8, 4, 4)


@pytest.fixture(scope="module")
def small(every, draw, tmp_path_factory):
    """For each number of bits the file."""
    folder = tmp_path_factory.mktemp("small")

    def make(bits):
        path = folder / f"{bits}.onnx"
        return quantize(every.path, draw(every), path, spec=every.spec, target="size", bits=bits)

    return {bits: make(bits) for bits in (8, 4)}


def initializers(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def unpacked_product(stored, scales, bits, length):
    """MatMulNBits' weight as float64 [length, columns], by its documentation."""
    if bits == 4:
        stored = np.stack([stored & 15, stored >> 4], -1).reshape(*stored.shape[:2], -1)
    real = (stored.astype(np.float64) - HALF[bits]) * scales.reshape(*stored.shape[:2], 1)
    return real.reshape(len(stored), -1)[:, :length].T


def unpacked_weights(path, bits):
    """The weight that each node of a file computes with, by the node's name in fp32."""
    graph, found = onnx.load(path).graph, {}
    constants = initializers(path)
    for node in graph.node:
        if node.op_type == "MatMulNBits":
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            stored, scales = (constants[name] for name in node.input[1:3])
            found[node.name.removesuffix(f"_int{bits}")] = [
                unpacked_product(stored, scales, bits, attributes["K"]).astype(np.float32).copy()
            ]
    chains = {
        node.name: [name for name in node.input[1:3] if name not in constants]
        for node in graph.node
        if node.op_type in ("Conv", "ConvTranspose", "LSTM", "GRU")
    }
    model = onnx.load(path)
    wanted = sorted({name for names in chains.values() for name in names})
    model.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {graph.input[0].name: np.zeros((1, 8, 4, 4), np.float32)}
    values = dict(zip(wanted, session.run(wanted, feeds), strict=True))
    return found | {name: [values[each] for each in names] for name, names in chains.items()}


@pytest.mark.parametrize("bits", [8, 4])
def test_every_large_weight_is_within_half_a_step_of_the_original(every, small, bits):
    graph, constants = onnx.load(every.path).graph, initializers(every.path)
    found = unpacked_weights(small[bits].path, bits)
    kinds = Counter(node.op_type for node in graph.node if node.name in found)
    assert kinds == {"Conv": 1, "ConvTranspose": 1, "LSTM": 1, "GRU": 1, "MatMul": 2}
    for node in [node for node in graph.node if node.name in found]:
        weights = [constants[name] for name in node.input[1:3] if constants[name].ndim > 1]
        for want, have in zip(weights, found[node.name], strict=True):
            # A block's scale is at most what its own largest weight asks for; the opposite end lacks half a step.
            assert np.abs(want - have).max() <= 1.001 * np.abs(want).max() / HALF[bits]
            noise = ((want - have) ** 2).mean()
            assert 10 * np.log10((want**2).mean() / noise) > {8: 42, 4: 18}[bits]


@pytest.mark.parametrize("bits", [8, 4])
def test_the_file_computes_what_fp32_does_with_those_weights(every, small, draw, run, bits):
    model, found = onnx.load(every.path), unpacked_weights(small[bits].path, bits)
    by_name = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.name in found]:
        names = [name for name in node.input[1:3] if len(by_name[name].dims) > 1]
        for name, array in zip(names, found[node.name], strict=True):
            by_name[name].CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, small[bits].path.with_name("same.onnx"))
    (feeds,) = draw(every, seed=2, batches=1)
    want, have = run(small[bits].path.with_name("same.onnx"), feeds), run(small[bits].path, feeds)
    # The accuracy level that MatMulNBits has by default computes in fp32.
    np.testing.assert_allclose(have, want, atol=1e-5 * np.abs(want).max())


def test_unpacking_is_folded_when_the_session_opens(fp32, int8, kernels):
    torch.manual_seed(1)
    source = fp32(
        nn.Sequential(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 16, 1, groups=2), nn.Conv2d(16, 64, 1)), 16, 8, 8
    )
    for bits in (8, 4):
        done = int8(source, target="size", bits=bits)
        assert kernels(done.path) == kernels(source.path)
        precisions = Counter(node.precision for node in done.nodes if node.op == "Conv")
        # The second convolution has 256 weights.
        assert precisions == {f"int{bits} weights": 2, "fp32": 1}


def test_the_report_says_what_became_of_each_node(every, small):
    for bits, done in small.items():
        rows = {node.op: node for node in done.nodes}
        assert rows["Conv"].precision == rows["LSTM"].precision == f"int{bits} weights"
        assert (rows["Relu"].precision, rows["Relu"].reason) == ("fp32", "it has no weights")
        assert done.kernels["MatMulNBits"] == 2
        assert (done.scheme, done.int8_nodes, done.seen_here) == ("weights", 0, "run here: any processor takes it")
    sizes = [every.path.stat().st_size, small[8].path.stat().st_size, small[4].path.stat().st_size]
    assert sizes[1] < 0.35 * sizes[0]
    assert sizes[2] < 0.27 * sizes[0]
    assert small[8].sqnr_db > 40
    assert small[4].sqnr_db > 15


@pytest.mark.parametrize(("bits", "block"), [(4, 32), (4, 16), (8, 128), (8, 32)])
def test_products_are_packed_as_onnx_runtimes_own_quantizer_packs_them(bits, block):
    weight = np.random.default_rng(0).standard_normal((100, 24)).astype(np.float32)
    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=True, bits=bits)
    packed, scales, _ = DefaultWeightOnlyQuantizer(config).qbits_block_quant(weight)
    integers, own = blocks_of(weight.T, block, bits)
    stored = nibbles(integers) if bits == 4 else (integers + 128).astype(np.uint8)
    np.testing.assert_allclose(own, scales, rtol=1e-6)
    # Ties between two integers are rounded to either.
    difference = unpacked_product(stored, own, bits, 100) - unpacked_product(packed, scales, bits, 100)
    assert (np.abs(difference) > 1e-6).mean() < 0.005
    assert stored.shape == packed.shape


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 70)), elements=st.floats(-50, 50, width=32)),
    st.sampled_from([8, 4]),
    st.sampled_from([16, 32]),
)
def test_blocks_are_within_a_step_and_their_largest_weight_is_exact(rows, bits, block):
    integers, scales = blocks_of(rows, block, bits)
    assert integers.min() >= -HALF[bits]
    assert integers.max() <= HALF[bits] - 1
    real = (integers * scales[..., None]).reshape(len(rows), -1)
    assert not real[:, rows.shape[1] :].any()
    for index in range(integers.shape[1]):
        span = slice(index * block, min((index + 1) * block, rows.shape[1]))
        for row, have, scale in zip(rows[:, span], real[:, span], scales[:, index], strict=True):
            if np.abs(row).max() < 1e-30:
                continue
            assert np.abs(row - have).max() <= 1.001 * abs(scale)
            extreme = np.abs(row).argmax()
            assert have[extreme] == pytest.approx(row[extreme], rel=1e-5)


def test_a_table_that_is_looked_up_too_is_stored_once(run, tmp_path):
    table = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "table"], ["scores"], name="scores", transB=1),
            helper.make_node("ArgMax", ["scores"], ["best"], name="best", axis=1, keepdims=0),
            helper.make_node("Gather", ["table", "best"], ["y"], name="y"),
        ],
        "nearest",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 32])],
        [numpy_helper.from_array(table, "table")],
    )
    path, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    feeds = {"x": table[5:9]}
    quantize(path, [feeds], small, spec=spec_of(ir.load(path)), target="size", bits=4)
    assert [array.size for array in initializers(small).values() if array.size >= 1024] == [64 * 32 // 2]
    want, have = run(path, feeds), run(small, feeds)
    assert np.abs(want - have).max() <= np.abs(table).max() / 8


def test_an_odd_number_of_weights_is_stored_in_8_bits(fp32, int8):
    done = int8(fp32(nn.Conv1d(41, 43, 3), 41, 9), target="size", bits=4)
    stored = [array for array in initializers(done.path).values() if array.dtype == np.int8]
    assert [array.size for array in stored] == [41 * 43 * 3]


def test_wrong_options_and_networks_without_large_weights(resnet, fp32, int8):
    for options in ({"target": "size", "bits": 3}, {"target": "arm64", "bits": 4}):
        with pytest.raises(QuantizeError, match=f"unknown {options['bits']}"):
            int8(resnet, **options)
    with pytest.raises(QuantizeError, match="nothing in the graph"):
        int8(fp32(nn.Linear(8, 8), 8), target="size")
    name = next(node.name for node in onnx.load(resnet.path).graph.node if node.op_type == "Conv")
    rows = {node.name: node.reason for node in int8(resnet, target="size", keep_float=[name]).nodes}
    assert rows[name] == "it was asked to stay in fp32"
