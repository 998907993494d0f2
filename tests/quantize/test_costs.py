"""Predicted costs by the formula."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.device.profile import Cost, DeviceProfile, Pattern
from edgekit.quantize.costs import Costs, pattern_of


def pattern(unit, *, fp32=(1.0, 2.0), int8=(0.5, 1.0)):
    lines = [Cost(base_us=base, rate_us=rate) for base, rate in (fp32, int8)]
    return Pattern(unit=unit, fp32=lines[0], int8=lines[1], fused={"uint8": True}, kernels=())


@pytest.fixture
def costs():
    patterns = {
        "Conv.dense": pattern("MACs"),
        "GlobalAveragePool": pattern("elements"),
        "Tanh": pattern("elements", fp32=(0.0, 0.0), int8=(0.0, 0.0)),
    }
    return Costs(DeviceProfile(target="x86-vnni", threads=1, environment={}, patterns=patterns))


@pytest.fixture
def graph():
    weight = numpy_helper.from_array(np.ones((16, 8, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c"], ["t"], name="tanh"),
        helper.make_node("GlobalAveragePool", ["t"], ["p"], name="pool"),
        helper.make_node("Cos", ["p"], ["y"], name="cos"),
    ]
    values = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 10, 10]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    made = helper.make_graph(nodes, "g", values[:1], values[1:], [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph


def test_work_is_counted_for_one_sample(costs, graph):
    conv, _, pool, _ = graph
    macs = 16 * 8 * 3 * 3 * 10 * 10
    assert costs.fp32(conv) == pytest.approx(1.0 + 2.0 * macs / 1000)
    assert costs.int8(conv) == pytest.approx(0.5 + 1.0 * macs / 1000)
    # A pool reads more than it makes.
    assert costs.fp32(pool) == pytest.approx(1.0 + 2.0 * 16 * 10 * 10 / 1000)


def test_only_what_has_both_forms_is_predicted_both_ways(costs, graph):
    found = costs.both_ways(graph)
    assert set(found) == {"conv", "pool"}
    assert found["pool"] == (round(1.0 + 3.2, 2), round(0.5 + 1.6, 2))


def test_a_rewrite_is_cheaper_if_the_int8_costs_of_its_parts_are(costs, graph):
    conv, tanh, _, _ = graph
    work = 16 * 10 * 10
    macs = 16 * 8 * 3 * 3 * 10 * 10
    # 0.5 us and 1.0 us for a thousand units each.
    assert costs.is_cheaper(conv, {"GlobalAveragePool": work, "Conv.dense": macs - work - 501})
    assert not costs.is_cheaper(conv, {"GlobalAveragePool": work, "Conv.dense": macs - work - 499})
    assert not costs.is_cheaper(conv, {"never probed": 0.0})
    assert not costs.is_cheaper(tanh, {"Tanh": 0.0})


def test_a_number_beside_a_value_has_a_pattern_of_its_own():
    number = ir.Value(name="n", const_value=ir.tensor(np.ones(1, np.float32)))
    assert pattern_of(ir.node("Add", [ir.Value(name="x"), number])) == "Add.constant"
    assert pattern_of(ir.node("Mul", [number, ir.Value(name="x")])) == "Mul.constant"
    assert pattern_of(ir.node("Add", [ir.Value(name="x"), ir.Value(name="y")])) == "Add"


@pytest.mark.parametrize(
    ("shape", "groups", "name"),
    [
        ((8, 8, 3, 3), 1, "dense"),
        ((8, 40, 1, 1), 1, "pointwise"),
        ((8, 1, 3, 3), 8, "depthwise"),
        ((8, 1, 1, 1), 8, "channelwise"),
        ((8, 4, 3, 3), 2, "grouped"),
        ((8, 3, 3, 3), 1, "few_inputs"),
    ],
)
def test_convolutions_have_patterns_by_kind(shape, groups, name):
    weight = ir.Value(name="w", const_value=ir.tensor(np.zeros(shape, np.float32)))
    node = ir.node("Conv", [ir.Value(name="x"), weight], {"group": groups})
    assert pattern_of(node) == f"Conv.{name}"
