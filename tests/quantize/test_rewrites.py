"""Each rewrite leaves every output as it was, and is not applied where it would not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgekit.quantize import rewrites

RNG = np.random.default_rng(0)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def norm(channels):
    """Gamma, beta, mean and variance of a BatchNormalization."""
    return {
        "gamma": RNG.uniform(0.5, 1.5, channels).astype(np.float32),
        "beta": random(channels),
        "mean": random(channels),
        "variance": RNG.uniform(0.5, 2.0, channels).astype(np.float32),
    }


NORM = ["gamma", "beta", "mean", "variance"]


def built(nodes, constants, shape=(4, 8, 8), output="y"):
    """A checked model with an open batch, and shapes inferred."""
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, name=f"{op}_{i}", **given) for i, (op, ins, outs, given) in enumerate(nodes)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(model)
    return model


def answer(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def applied(one_pass, model, shape=(4, 8, 8)):
    """Apply a pass; the outputs must be the same. Gives how often it was applied and the operators that are left."""
    changed = ir.from_proto(model)
    count = one_pass(changed.graph)
    after = ir.to_proto(changed)
    onnx.checker.check_model(after, full_check=True)
    assert [value.name for value in after.graph.output] == [value.name for value in model.graph.output]
    for samples in (1, 3):
        x = random(samples, *shape)
        want, have = answer(model, x), answer(after, x)
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    return count, [node.op_type for node in after.graph.node]


CONV = ("Conv", ["x", "w", "b"], ["c"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
CONV_WEIGHTS = {"w": random(6, 4, 3, 3), "b": random(6)}


@pytest.mark.parametrize("biased", [True, False])
def test_batchnorm_folds_into_a_convolution(biased):
    conv = ("Conv", ["x", "w", "b"] if biased else ["x", "w"], ["c"], CONV[3])
    weights = CONV_WEIGHTS if biased else {"w": CONV_WEIGHTS["w"]}
    model = built([conv, ("BatchNormalization", ["c", *NORM], ["y"], {"epsilon": 0.01})], {**weights, **norm(6)})
    assert applied(rewrites.fold_batchnorm, model) == (1, ["Conv"])


@pytest.mark.parametrize("groups", [1, 2])
def test_batchnorm_folds_into_a_transposed_convolution(groups):
    nodes = [
        ("ConvTranspose", ["x", "w"], ["c"], {"kernel_shape": [2, 2], "strides": [2, 2], "group": groups}),
        ("BatchNormalization", ["c", *NORM], ["y"], {}),
    ]
    model = built(nodes, {"w": random(4, 6 // groups, 2, 2), **norm(6)})
    assert applied(rewrites.fold_batchnorm, model) == (1, ["ConvTranspose"])


@pytest.mark.parametrize("turned", [0, 1])
def test_batchnorm_folds_into_a_gemm(turned):
    nodes = [
        ("Gemm", ["x", "w", "b"], ["c"], {"transB": turned}),
        ("BatchNormalization", ["c", *NORM], ["y"], {}),
    ]
    model = built(nodes, {"w": random(5, 4) if turned else random(4, 5), "b": random(5), **norm(5)}, (4,))
    assert applied(rewrites.fold_batchnorm, model, (4,)) == (1, ["Gemm"])


def test_batchnorm_behind_a_relu_or_a_branch_does_not_fold_but_becomes_depthwise():
    relu = [CONV, ("Relu", ["c"], ["r"], {}), ("BatchNormalization", ["r", *NORM], ["y"], {})]
    model = built(relu, {**CONV_WEIGHTS, **norm(6)})
    assert applied(rewrites.fold_batchnorm, model)[0] == 0
    assert applied(rewrites.norms_to_convolutions, model) == (1, ["Conv", "Relu", "Conv"])
    branch = [CONV, ("BatchNormalization", ["c", *NORM], ["n"], {}), ("Add", ["c", "n"], ["y"], {})]
    assert applied(rewrites.fold_batchnorm, built(branch, {**CONV_WEIGHTS, **norm(6)}))[0] == 0


def test_batchnorm_does_not_fold_into_a_gemm_with_factors_of_its_own():
    nodes = [
        ("Gemm", ["x", "w", "b"], ["c"], {"beta": 0.5}),
        ("BatchNormalization", ["c", *NORM], ["y"], {}),
    ]
    model = built(nodes, {"w": random(4, 5), "b": random(5), **norm(5)}, (4,))
    assert applied(rewrites.fold_batchnorm, model, (4,))[0] == 0


def shortcut(*, starts=(0, 0), steps=(2, 2), value=0.0, pads=(0, 2, 0, 0, 0, 2, 0, 0)):
    nodes = [
        ("Slice", ["x", "starts", "ends", "axes", "steps"], ["s"], {}),
        ("Pad", ["s", "pads", "value"], ["y"], {}),
    ]
    constants = {
        "starts": np.array(starts, np.int64),
        "ends": np.array([2**31 - 1] * 2, np.int64),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array(steps, np.int64),
        "pads": np.array(pads, np.int64),
        "value": np.array(value, np.float32),
    }
    return built(nodes, constants)


@pytest.mark.parametrize("steps", [(2, 2), (1, 2), (3, 1)])
def test_a_zero_padded_shortcut_becomes_a_convolution(steps):
    count, operators = applied(rewrites.shortcuts_to_convolutions, shortcut(steps=steps))
    assert (count, operators[-1]) == (1, "Conv")
    assert "Pad" not in operators


@pytest.mark.parametrize(
    "other",
    [{"starts": (1, 0)}, {"value": 1.0}, {"pads": (0, 2, 1, 0, 0, 2, 0, 0)}, {"pads": (0, -1, 0, 0, 0, 2, 0, 0)}],
    ids=["starts at the second row", "padded with ones", "padded in space", "channels cut off"],
)
def test_what_only_looks_like_a_shortcut_is_never_a_wrong_convolution(other):
    count, operators = applied(rewrites.shortcuts_to_convolutions, shortcut(**other))
    # Where only the slice is odd, the padding alone may still become a convolution.
    assert count == 0 or ("starts" in other and "Slice" in operators)


def test_two_slices_that_follow_each_other_become_one_stride():
    nodes = [
        ("Slice", ["x", "zero", "end", "rows", "two"], ["a"], {}),
        ("Slice", ["a", "zero", "end", "columns", "two"], ["s"], {}),
        ("Pad", ["s", "pads"], ["y"], {}),
    ]
    constants = {
        "zero": np.array([0], np.int64),
        "end": np.array([2**31 - 1], np.int64),
        "two": np.array([2], np.int64),
        "rows": np.array([2], np.int64),
        "columns": np.array([3], np.int64),
        "pads": np.array([0, 1, 0, 0, 0, 3, 0, 0], np.int64),
    }
    assert applied(rewrites.shortcuts_to_convolutions, built(nodes, constants))[0] == 1


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_space_becomes_a_pool(keepdims):
    nodes = [("ReduceMean", ["x", "axes"], ["y"], {"keepdims": keepdims})]
    count, operators = applied(rewrites.pool_spatial_means, built(nodes, {"axes": np.array([-1, 2], np.int64)}))
    assert (count, operators[0]) == (1, "GlobalAveragePool")


@pytest.mark.parametrize("axes", [[1], [2], [1, 2, 3], [0, 2, 3]])
def test_other_means_stay(axes):
    nodes = [("ReduceMean", ["x", "axes"], ["y"], {"keepdims": 1})]
    model = built(nodes, {"axes": np.array(axes, np.int64)})
    assert applied(rewrites.pool_spatial_means, model) == (0, ["ReduceMean"])


@pytest.mark.parametrize(
    "given",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 2], "strides": [1, 2]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        {"kernel_shape": [2, 2], "dilations": [2, 2]},
    ],
)
def test_an_average_pool_becomes_a_depthwise_convolution(given):
    count, operators = applied(
        rewrites.average_pools_to_convolutions, built([("AveragePool", ["x"], ["y"], given)], {})
    )
    assert (count, operators) == (1, ["Conv"])


@pytest.mark.parametrize(
    "given",
    [
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [8, 8]},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"},
    ],
    ids=["borders count less", "windows that stick out", "the whole image", "automatic padding"],
)
def test_other_average_pools_stay(given):
    model = built([("AveragePool", ["x"], ["y"], given)], {})
    assert applied(rewrites.average_pools_to_convolutions, model) == (0, ["AveragePool"])


def test_no_ops_go():
    nodes = [
        ("Identity", ["x"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Relu", ["b"], ["c"], {}),
        ("Add", ["zero", "c"], ["d"], {}),
        ("Dropout", ["d"], ["e"], {}),
        ("Sub", ["e", "zero"], ["y"], {}),
    ]
    model = built(nodes, {"zero": np.zeros(1, np.float32)})
    count, operators = applied(rewrites.remove_no_ops, model)
    assert (count, operators) == (5, ["Relu"])


def test_what_changes_something_stays():
    wide = built(
        [("Relu", ["x"], ["r"], {}), ("Add", ["r", "zero"], ["y"], {})], {"zero": np.zeros((5, 1, 1, 1, 1), np.float32)}
    )
    assert applied(rewrites.remove_no_ops, wide)[0] == 0
    half = built([("Add", ["x", "half"], ["y"], {})], {"half": np.full(1, 0.5, np.float32)})
    assert applied(rewrites.remove_no_ops, half)[0] == 0
    back = built([("Sub", ["zero", "x"], ["y"], {})], {"zero": np.zeros(1, np.float32)})
    assert applied(rewrites.remove_no_ops, back)[0] == 0


def test_all_passes_together_are_exact_too():
    nodes = [
        CONV,
        ("BatchNormalization", ["c", *NORM], ["n"], {}),
        ("Relu", ["n"], ["r"], {}),
        ("BatchNormalization", ["r", "g2", "b2", "m2", "v2"], ["d"], {}),
        ("AveragePool", ["d"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("ReduceMean", ["p", "axes"], ["y"], {"keepdims": 0}),
    ]
    second = dict(zip(["g2", "b2", "m2", "v2"], norm(6).values(), strict=True))
    model = built(nodes, {**CONV_WEIGHTS, **norm(6), **second, "axes": np.array([2, 3], np.int64)})
    changed = ir.from_proto(model)
    assert rewrites.rewrite(changed) == 4
    after = ir.to_proto(changed)
    x = random(2, 4, 8, 8)
    np.testing.assert_allclose(answer(after, x), answer(model, x), rtol=1e-4, atol=1e-5)
    assert [node.op_type for node in after.graph.node] == [
        "Conv",
        "Relu",
        "Conv",
        "Conv",
        "GlobalAveragePool",
        "Reshape",
    ]
    # Nothing is left that no node reads.
    read = {name for node in after.graph.node for name in node.input}
    assert {tensor.name for tensor in after.graph.initializer} <= read
