"""All passes together."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

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
CONV = ("Conv", ["x", "w", "b"], ["c"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
CONV_WEIGHTS = {"w": random(6, 4, 3, 3), "b": random(6)}


def test_all_passes_together_are_exact_too(built, reference):
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
    names = rewrites.rewrite(changed, lambda *_: True)
    assert names == ("BatchNormalization_3", "AveragePool_4")
    after = ir.to_proto(changed)
    x = random(2, 4, 8, 8)
    np.testing.assert_allclose(reference(after, x)[0], reference(model, x)[0], rtol=1e-4, atol=1e-5)
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
    again = ir.from_proto(model)
    rewrites.rewrite_again(again, names)
    assert ir.to_proto(again) == after
    half = ir.from_proto(model)
    assert rewrites.rewrite(half, lambda node, _: node.name == "AveragePool_4") == ("AveragePool_4",)
    assert "BatchNormalization" in [node.op_type for node in half.graph]
