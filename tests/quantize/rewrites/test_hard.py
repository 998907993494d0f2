"""HardSigmoid and HardSwish."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgekit.export import spec_of
from edgekit.quantize import quantize, rewrites
from edgekit.quantize.rewrites.layers import layer_before

CONV = ("Conv", ["x", "w", "b"], ["c"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
SIGMOID = {"alpha": 1 / 6, "beta": 0.5}


def weights(random):
    return {"w": random(6, 4, 3, 3), "b": random(6)}


@pytest.mark.parametrize("given", [{}, SIGMOID, {"alpha": -0.3, "beta": 0.2}])
@pytest.mark.parametrize("biased", [True, False])
def test_a_hard_sigmoid_folds_into_a_convolution(given, biased, built, applied, random):
    conv = ("Conv", ["x", "w", "b"] if biased else ["x", "w"], ["c"], CONV[3])
    constants = weights(random) if biased else {"w": weights(random)["w"]}
    model = built([conv, ("HardSigmoid", ["c"], ["y"], given)], constants)
    assert applied(rewrites.fold_hard_sigmoids, model) == (1, ["Conv", "Clip"])


@pytest.mark.parametrize("turned", [0, 1])
def test_a_hard_sigmoid_folds_into_a_gemm(turned, built, applied, random):
    nodes = [("Gemm", ["x", "w", "b"], ["c"], {"transB": turned}), ("HardSigmoid", ["c"], ["y"], SIGMOID)]
    model = built(nodes, {"w": random(5, 4) if turned else random(4, 5), "b": random(1, 5)}, (4,))
    assert applied(rewrites.fold_hard_sigmoids, model) == (1, ["Gemm", "Clip"])


def test_a_hard_sigmoid_folds_into_a_transposed_convolution(built, applied, random):
    nodes = [
        ("ConvTranspose", ["x", "w"], ["c"], {"kernel_shape": [2, 2], "strides": [2, 2], "group": 2}),
        ("HardSigmoid", ["c"], ["y"], SIGMOID),
    ]
    assert applied(rewrites.fold_hard_sigmoids, built(nodes, {"w": random(4, 3, 2, 2)})) == (
        1,
        ["ConvTranspose", "Clip"],
    )


def test_a_hard_sigmoid_beside_other_readers_or_behind_something_else_does_not_fold(built, applied, random):
    branch = [CONV, ("HardSigmoid", ["c"], ["s"], SIGMOID), ("Mul", ["c", "s"], ["y"], {})]
    assert applied(rewrites.fold_hard_sigmoids, built(branch, weights(random)))[0] == 0
    output = built([CONV, ("HardSigmoid", ["c"], ["y"], SIGMOID)], weights(random), output=["c", "y"])
    assert applied(rewrites.fold_hard_sigmoids, output)[0] == 0
    pool = [("GlobalAveragePool", ["x"], ["c"], {}), ("HardSigmoid", ["c"], ["y"], SIGMOID)]
    assert applied(rewrites.fold_hard_sigmoids, built(pool, {}))[0] == 0
    scaled = [("Gemm", ["x", "w"], ["c"], {"alpha": 2.0}), ("HardSigmoid", ["c"], ["y"], SIGMOID)]
    assert applied(rewrites.fold_hard_sigmoids, built(scaled, {"w": random(4, 5)}, (4,)))[0] == 0


def test_a_bias_that_differs_between_rows_takes_no_offset():
    w, b = (ir.Value(name=n, const_value=ir.tensor(np.ones((4, k), np.float32))) for n, k in (("w", 4), ("b", 1)))
    gemm = ir.node("Gemm", [ir.Value(name="x"), w, b])
    ir.node("HardSigmoid", [gemm.outputs[0]])
    assert layer_before(gemm.outputs[0]) is None
    gemm.resize_inputs(2)
    assert layer_before(gemm.outputs[0]) is gemm


def test_elsewhere_a_hard_sigmoid_becomes_a_depthwise_convolution(built, applied):
    nodes = [("MaxPool", ["x"], ["p"], {"kernel_shape": [2, 2]}), ("HardSigmoid", ["p"], ["y"], SIGMOID)]
    assert applied(rewrites.hard_sigmoids_to_convolutions, built(nodes, {})) == (1, ["MaxPool", "Conv", "Clip"])
    flat = built([("HardSigmoid", ["x"], ["y"], SIGMOID)], {}, (4,))
    assert applied(rewrites.hard_sigmoids_to_convolutions, flat) == (0, ["HardSigmoid"])


def test_a_hard_swish_behind_a_convolution_needs_no_second_one(built, applied, random):
    model = built([CONV, ("HardSwish", ["c"], ["y"], {})], weights(random))
    assert applied(rewrites.hard_swishes_to_products, model) == (1, ["Conv", "Add", "Clip", "Mul"])


def test_a_hard_swish_behind_a_product_needs_no_convolution(built, applied, random):
    gemm = built(
        [("Gemm", ["x", "w", "b"], ["c"], {}), ("HardSwish", ["c"], ["y"], {})],
        {"w": random(4, 5), "b": random(5)},
        (4,),
    )
    assert applied(rewrites.hard_swishes_to_products, gemm) == (1, ["Gemm", "Add", "Clip", "Mul"])
    product = built([("MatMul", ["x", "w"], ["c"], {}), ("HardSwish", ["c"], ["y"], {})], {"w": random(8, 5)})
    assert applied(rewrites.hard_swishes_to_products, product) == (1, ["MatMul", "Add", "Clip", "Mul"])


def test_elsewhere_the_gate_of_a_hard_swish_is_a_depthwise_convolution(built, applied, random):
    nodes = [CONV, ("HardSwish", ["c"], ["h"], {}), ("Add", ["c", "h"], ["y"], {})]
    count, operators = applied(rewrites.hard_swishes_to_products, built(nodes, weights(random)))
    assert (count, operators) == (1, ["Conv", "Conv", "Clip", "Mul", "Add"])
    flat = built([("HardSwish", ["x"], ["y"], {})], {}, (4,))
    assert applied(rewrites.hard_swishes_to_products, flat) == (0, ["HardSwish"])


def network(random):
    """A squeeze-and-excitation block of MobileNetV3."""
    return [
        ("Conv", ["x", "w1", "b1"], ["c1"], {"kernel_shape": [1, 1]}),
        ("HardSwish", ["c1"], ["h1"], {}),
        ("Conv", ["h1", "w2", "b2"], ["c2"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 32}),
        ("HardSwish", ["c2"], ["h2"], {}),
        ("GlobalAveragePool", ["h2"], ["p"], {}),
        ("Conv", ["p", "w3", "b3"], ["c3"], {"kernel_shape": [1, 1]}),
        ("Relu", ["c3"], ["r"], {}),
        ("Conv", ["r", "w4", "b4"], ["c4"], {"kernel_shape": [1, 1]}),
        ("HardSigmoid", ["c4"], ["s"], SIGMOID),
        ("Mul", ["h2", "s"], ["m"], {}),
        ("Conv", ["m", "w5", "b5"], ["y"], {"kernel_shape": [1, 1]}),
    ], {
        "w1": random(32, 40, 1, 1) / 6,
        "b1": random(32),
        "w2": random(32, 1, 3, 3) / 3,
        "b2": random(32),
        "w3": random(8, 32, 1, 1) / 5,
        "b3": random(8),
        "w4": random(32, 8, 1, 1),
        "b4": random(32),
        "w5": random(16, 32, 1, 1) / 6,
        "b5": random(16),
    }


def test_after_quantizing_a_block_of_mobilenet_v3_is_all_int8(built, random, after_quantizing):
    found = after_quantizing(built(*network(random), (40, 8, 8)))
    assert found["QLinearConv"] == 5
    assert found["QLinearAdd"] == 2
    assert found["QLinearMul"] == 3
    assert not {"HardSigmoid", "HardSwish", "Mul", "Clip", "Conv", "FusedConv", "GlobalAveragePool"} & set(found)
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1


def test_behind_an_fp32_convolution_a_hard_swish_stays(built, random, after_quantizing):
    """ONNX Runtime fuses it into the convolution there."""
    nodes = [
        ("Conv", ["x", "w1", "b1"], ["c1"], {"kernel_shape": [3, 3]}),
        ("HardSwish", ["c1"], ["h1"], {}),
        ("Conv", ["h1", "w2"], ["y"], {"kernel_shape": [3, 3]}),
    ]
    model = built(nodes, {"w1": random(16, 3, 3, 3), "b1": random(16), "w2": random(16, 16, 3, 3)}, (3, 12, 12))
    found = after_quantizing(model)
    assert found["QLinearConv"] == 1
    assert not {"QLinearMul", "QLinearAdd", "Clip"} & set(found)
    kept = after_quantizing(built(*network(random), (40, 8, 8)), keep_float=["HardSwish_1"])
    assert kept["QLinearAdd"] == 1


def test_quantized_hard_swishes_compute_what_they_should(built, random, tmp_path, reference):
    """The int8 file stays within a few steps of the fp32 one."""
    model = built(*network(random), (40, 8, 8))
    onnx.save(model, tmp_path / "source.onnx")
    x = [{"x": 2 * random(16, 40, 8, 8)} for _ in range(2)]
    quantize(tmp_path / "source.onnx", x, tmp_path / "int8.onnx", spec=spec_of(ir.from_proto(model)))
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    want, have = reference(model, x[0]["x"])[0], session.run(None, x[0])[0]
    noise = float(np.square(want - have).mean() / np.square(want).mean())
    assert 10 * np.log10(1 / noise) > 28


@pytest.mark.parametrize("target", ["x86-vnni", "arm64"])
@pytest.mark.parametrize("step", [("Add", 1.7), ("Add", -0.3), ("Mul", -2.5), ("Mul", 0.0)])
def test_a_number_beside_an_int8_value_is_exact(target, step, built, random, tmp_path):
    op, number = step
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]}),
        ("Relu", ["c"], ["r"], {}),
        (op, ["n", "r"], ["a"], {}),
        ("Conv", ["a", "v"], ["y"], {"kernel_shape": [3, 3]}),
    ]
    constants = {"w": random(16, 8, 3, 3), "v": random(16, 16, 3, 3), "n": np.full((1, 1), number, np.float32)}
    model = built(nodes, constants, (8, 8, 8))
    onnx.save(model, tmp_path / "source.onnx")
    path, spec = tmp_path / "int8.onnx", spec_of(ir.from_proto(model))
    quantize(tmp_path / "source.onnx", [{"x": random(8, 8, 8, 8)}], path, spec=spec, target=target)
    (node,) = [node for node in ir.load(path).graph if node.op_type == op]
    (made,) = [v.producer() for v in node.inputs if v.producer().inputs[0].const_value is not None]
    stored, scale, zero = (value.const_value.numpy() for value in made.inputs)
    assert stored.dtype == zero.dtype == (np.uint8 if target == "x86-vnni" else np.int8)
    np.testing.assert_allclose(scale * (stored.astype(int) - int(zero)), np.full((1, 1), number), rtol=1e-6)
