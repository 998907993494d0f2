"""What is added to, or multiplied with, the channels of a layer."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.quantize import rewrites

LAYERS = {
    "Conv": (("Conv", ["x", "w", "b"], ["c"], {"kernel_shape": [3, 3]}), (6, 4, 3, 3), (6, 1, 1), (4, 8, 8)),
    "ConvTranspose": (
        ("ConvTranspose", ["x", "w", "b"], ["c"], {"kernel_shape": [2, 2], "group": 2}),
        (4, 3, 2, 2),
        (1, 6, 1, 1),
        (4, 8, 8),
    ),
    "Gemm": (("Gemm", ["x", "w", "b"], ["c"], {}), (4, 6), (6,), (4,)),
    "turned Gemm": (("Gemm", ["x", "w", "b"], ["c"], {"transB": 1}), (6, 4), (1, 6), (4,)),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("first", [True, False])
def test_a_number_for_each_channel_folds(layer, op, first, built, applied):
    node, weights, channels, shape = LAYERS[layer]
    rng = np.random.default_rng(0)
    numbers = rng.uniform(0.5, 2.0, channels).astype(np.float32)
    constants = {"w": rng.standard_normal(weights), "b": rng.standard_normal(6), "n": numbers}
    constants = {name: array.astype(np.float32) for name, array in constants.items()}
    model = built([node, (op, ["n", "c"] if first else ["c", "n"], ["y"], {})], constants, shape)
    if op == "Div" and first:  # What is near zero would blow up in a comparison.
        assert rewrites.fold_factors(ir.from_proto(model).graph) == 0
    else:
        count, operators = applied(rewrites.fold_factors, model)
        assert (count, len(operators)) == (1, 1)


def test_one_number_for_all_folds_into_a_layer_without_bias(built, applied, random):
    conv = ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]})
    for op in ("Add", "Mul"):
        model = built([conv, (op, ["c", "n"], ["y"], {})], {"w": random(6, 4, 3, 3), "n": np.float32(0.3)})
        assert applied(rewrites.fold_factors, model) == (1, ["Conv"])


def test_a_chain_folds(built, applied, random):
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]}),
        ("Mul", ["c", "n"], ["m"], {}),
        ("Add", ["o", "m"], ["a"], {}),
        ("Div", ["a", "d"], ["y"], {}),
    ]
    constants = {"w": random(6, 4, 3, 3), "n": random(6, 1, 1), "o": random(1, 6, 1, 1), "d": np.float32(6.0)}
    assert applied(rewrites.fold_factors, built(nodes, constants)) == (3, ["Conv"])


@pytest.mark.parametrize("channels", [(6,), (1, 1, 6), ()])
def test_a_layer_scale_goes_past_the_bias(channels, built, applied, random):
    nodes = [
        ("MatMul", ["x", "w"], ["m"], {}),
        ("Add", ["b", "m"], ["a"], {}),
        ("Mul", ["a", "g"], ["y"], {}),
    ]
    model = built(nodes, {"w": random(8, 6), "b": random(6), "g": random(*channels)})
    assert applied(rewrites.fold_factors, model) == (1, ["MatMul", "Add"])


def test_an_offset_of_a_matmul_stays(built, applied, random):
    model = built(
        [("MatMul", ["x", "w"], ["m"], {}), ("Add", ["m", "b"], ["y"], {})], {"w": random(8, 6), "b": random(6)}
    )
    assert applied(rewrites.fold_factors, model) == (0, ["MatMul", "Add"])


@pytest.mark.parametrize(
    "shape",
    [(6, 6), (6,), (1, 6, 6, 6), (6, 6, 6), (1, 1, 1, 1, 1)],
    ids=["for each place", "for each column", "for each number", "for all but the batch", "of a higher rank"],
)
def test_what_differs_otherwise_stays(shape, built, applied, random):
    conv = ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]})
    model = built([conv, ("Mul", ["c", "n"], ["y"], {})], {"w": random(6, 4, 3, 3), "n": random(*shape)})
    assert applied(rewrites.fold_factors, model) == (0, ["Conv", "Mul"])


def test_a_factor_that_adds_channels_stays(built, applied, random):
    conv = ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]})
    model = built([conv, ("Mul", ["c", "n"], ["y"], {})], {"w": random(1, 4, 3, 3), "n": random(6, 1, 1)})
    assert applied(rewrites.fold_factors, model) == (0, ["Conv", "Mul"])


def test_what_others_read_stays(built, applied, random):
    nodes = [
        ("MatMul", ["x", "w"], ["m"], {}),
        ("Add", ["m", "b"], ["a"], {}),
        ("Mul", ["a", "g"], ["h"], {}),
        ("Add", ["h", "a"], ["y"], {}),
    ]
    model = built(nodes, {"w": random(8, 6), "b": random(6), "g": random(6)})
    assert applied(rewrites.fold_factors, model)[0] == 0
    nodes[-1] = ("Add", ["h", "m"], ["y"], {})
    assert applied(rewrites.fold_factors, built(nodes, {"w": random(8, 6), "b": random(6), "g": random(6)}))[0] == 0
