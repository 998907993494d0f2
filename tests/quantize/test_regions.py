"""The minimum cut against every possible choice."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.device.profile import Cost, DeviceProfile, Pattern
from edgekit.quantize.costs import LAYOUT, Costs
from edgekit.quantize.placement import wired
from edgekit.quantize.regions import Unit, cheapest_regions, units_of


class Priced:
    """Borders that cost what the test says."""

    def __init__(self, quantize, dequantize):
        self.quantize = lambda _value: quantize
        self.dequantize = lambda _value: dequantize


def network(reads):
    """A graph of `Add`s: node i reads two values, x (-1) or what an earlier node makes; the last one is the output."""
    names = {-1: "x"} | {index: f"v{index}" for index in range(len(reads))}
    nodes = [
        helper.make_node("Add", [names[a], names[b]], [names[index]], name=f"n{index}")
        for index, (a, b) in enumerate(reads)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(names[len(reads) - 1], TensorProto.FLOAT, [1, 4])],
    )
    return ir.from_proto(helper.make_model(graph)).graph


def cost_of(choice, problem):
    """What a choice costs, counted by hand: each value crosses once in each direction at most."""
    reads, prices, allowed, quantize, dequantize, float_givers = problem
    total = sum(prices[i][1] if i in choice else prices[i][0] for i in allowed)
    last = len(reads) - 1
    for maker in range(-1, len(reads)):
        readers = {index for index, pair in enumerate(reads) if maker in pair}
        outside = {index for index in readers if index not in choice}
        if maker in choice:
            if (outside or maker == last) and maker not in float_givers:
                total += dequantize
        elif readers & choice:
            total += quantize
    return total


@st.composite
def problems(draw):
    count = draw(st.integers(1, 7))
    reads = [(draw(st.integers(-1, i - 1)), draw(st.integers(-1, i - 1))) for i in range(count)]
    price = st.integers(0, 20)
    prices = [(draw(price), draw(price)) for _ in range(count)]
    allowed = sorted(draw(st.sets(st.integers(0, count - 1))))
    float_givers = draw(st.sets(st.integers(0, count - 1)))
    return reads, prices, allowed, draw(price), draw(price), float_givers


@given(problems())
def test_no_other_choice_is_cheaper(problem):
    reads, prices, allowed, quantize, dequantize, float_givers = problem
    names = {-1: "x"} | {index: f"v{index}" for index in range(len(reads))}
    units = [
        Unit(
            nodes=(f"n{i}",),
            inputs=tuple(names[each] for each in reads[i]),
            outputs=(names[i],),
            fp32_us=prices[i][0],
            int8_us=prices[i][1],
            gives_float=i in float_givers,
        )
        for i in allowed
    ]
    chosen = {int(name[1:]) for name in cheapest_regions(network(reads), units, Priced(quantize, dequantize))}
    assert chosen <= set(allowed)
    best = min(
        cost_of(set(choice), problem)
        for size in range(len(allowed) + 1)
        for choice in itertools.combinations(allowed, size)
    )
    assert cost_of(chosen, problem) == pytest.approx(best)


def chain(*operators):
    """x of 8 channels through convolutions and other operators."""
    nodes, constants, value = [], [], "x"
    for index, op in enumerate(operators):
        output, inputs = f"v{index}", [value]
        if op == "Conv":
            weight = numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), f"w{index}")
            constants.append(weight)
            inputs.append(weight.name)
        given_attributes = {"pads": [1, 1, 1, 1]} if op == "Conv" else {}
        nodes.append(helper.make_node(op, inputs, [output], name=f"{op}{index}", **given_attributes))
        value = output
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 10, 10])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph


def costs_of(*, conv=(10.0, 2.0), sigmoid=(1.0, 1.0), border=1.0, layouts=False):
    def pattern(unit, fp32, int8):
        flat = [Cost(base_us=each, rate_us=0.0) for each in (fp32, int8)]
        return Pattern(unit=unit, fp32=flat[0], int8=flat[1], fused={"uint8": True}, kernels=())

    patterns = {
        "Conv.dense": pattern("MACs", *conv),
        "Sigmoid": pattern("elements", *sigmoid),
        "QuantizeLinear": pattern("elements", border, border),
        "DequantizeLinear": pattern("elements", border, border),
    }
    profile = DeviceProfile(target="x86-vnni", threads=1, environment={}, patterns=patterns)
    return Costs(profile, layouts=layouts)


def chosen(graph, costs):
    can = {str(node.name) for node in graph if node.op_type in ("Conv", "Sigmoid", "Relu")}
    return sorted(cheapest_regions(graph, units_of(graph, wired(graph, can), costs), costs))


def test_regions_are_contiguous_where_a_border_costs_more_than_an_operator_gives():
    # In the middle, int8 loses 1 us and two borders would cost 2.
    graph = chain("Conv", "Sigmoid", "Conv")
    assert chosen(graph, costs_of(sigmoid=(1.0, 2.0))) == ["Conv0", "Conv2", "Sigmoid1"]
    assert chosen(graph, costs_of(sigmoid=(1.0, 5.0))) == ["Conv0", "Conv2"]


def test_an_island_that_gains_less_than_its_borders_is_dropped():
    graph = chain("Tanh", "Conv", "Tanh")
    assert chosen(graph, costs_of(conv=(10.0, 9.0))) == []
    assert chosen(graph, costs_of(conv=(10.0, 7.0))) == ["Conv1"]
    # The same convolution does not pay where its image changes layout twice.
    assert 2 * LAYOUT.of(800) > 1
    assert chosen(graph, costs_of(conv=(10.0, 7.0), layouts=True)) == []


def test_an_activation_goes_where_its_convolution_goes():
    graph = chain("Conv", "Relu")
    assert chosen(graph, costs_of()) == ["Conv0", "Relu1"]
    assert chosen(graph, costs_of(conv=(2.0, 3.0))) == []
