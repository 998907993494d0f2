"""Swish as a sigmoid and a product."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.quantize import rewrites

MICROSOFT = "com.microsoft"


@pytest.mark.parametrize(("alpha", "left"), [(1.0, ["Sigmoid", "Mul"]), (1.702, ["QuickGelu"])])
def test_quick_gelu_is_a_product_where_it_has_no_factor(alpha, left, built, applied):
    model = built([("QuickGelu", ["x"], ["y"], {"alpha": alpha, "domain": MICROSOFT})], {}, made=(4, 8, 8))
    assert applied(rewrites.swishes_to_products, model)[1] == left


@pytest.mark.parametrize(("given", "left"), [({}, ["Sigmoid", "Mul"]), ({"alpha": 0.5}, ["Swish"])])
def test_swish_is_a_product_where_it_has_no_factor(given, left, built):
    """By numpy: not every version of ONNX Runtime knows opset 24."""
    changed = ir.from_proto(built([("Swish", ["x"], ["y"], given)], {}, opset=24))
    rewrites.swishes_to_products(changed.graph)
    assert [node.op_type for node in changed.graph] == left
    if left != ["Swish"]:
        sigmoid, product = changed.graph
        assert set(product.inputs) == {changed.graph.inputs[0], sigmoid.outputs[0]}
        assert changed.graph.outputs[0] is product.outputs[0]


def test_after_quantizing_a_swish_is_int8(built, random, after_quantizing):
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]}),
        ("QuickGelu", ["c"], ["s"], {"alpha": 1.0, "domain": MICROSOFT}),
        ("Conv", ["s", "v"], ["y"], {"kernel_shape": [1, 1]}),
    ]
    weights = {"w": random(16, 8, 3, 3), "v": random(8, 16, 1, 1)}
    found = after_quantizing(built(nodes, weights, (8, 8, 8), made=(8, 6, 6)))
    assert (found["QLinearConv"], found["QLinearSigmoid"], found["QLinearMul"]) == (2, 1, 1)
    assert np.sum(list(found.values())) == 8
