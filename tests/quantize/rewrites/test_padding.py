"""Padding as part of its reader."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.quantize import rewrites

SPATIAL = (0, 0, 1, 0, 0, 0, 2, 1)
KERNEL = {"kernel_shape": [3, 3]}


def padded(built, reader, *, before=(), pads=SPATIAL, value=0.0, mode="constant", **more):
    """An operator, such as Relu, then Pad, then the reader."""
    op, names, given = reader
    value = {} if value is None else {"value": np.array(value, np.float32)}
    nodes = [(each, ["x"], ["b"], {}) for each in before]
    nodes += [
        ("Pad", ["b" if before else "x", "pads", *value], ["p"], {"mode": mode}),
        (op, ["p", *names], ["y"], given),
    ]
    return built(nodes, {"pads": np.array(pads, np.int64), **value, **more})


@pytest.mark.parametrize("value", [0.0, None])
@pytest.mark.parametrize("own", [{}, {"pads": [1, 0, 0, 2]}, {"auto_pad": "VALID"}, {"strides": [2, 2]}])
def test_padding_merges_into_a_convolution(value, own, built, applied, random):
    model = padded(built, ("Conv", ["w"], {**KERNEL, **own}), value=value, w=random(5, 4, 3, 3))
    assert applied(rewrites.merge_padding, model) == (1, ["Conv"])


def test_axes_may_be_named(built, applied, random):
    nodes = [("Pad", ["x", "pads", "", "axes"], ["p"], {}), ("Conv", ["p", "w"], ["y"], KERNEL)]
    constants = {"pads": np.array([2, 1], np.int64), "axes": np.array([-1], np.int64), "w": random(5, 4, 3, 3)}
    assert applied(rewrites.merge_padding, built(nodes, constants)) == (1, ["Conv"])


@pytest.mark.parametrize(
    "own", [{}, {"strides": [2, 2]}, {"pads": [0, 1, 0, 0], "count_include_pad": 1}, {"pads": [0] * 4}]
)
def test_padding_merges_into_an_average(own, built, applied):
    model = padded(built, ("AveragePool", [], {**KERNEL, **own}))
    assert applied(rewrites.merge_padding, model) == (1, ["AveragePool"])


@pytest.mark.parametrize("value", [-np.inf, float(np.finfo(np.float32).min)])
def test_padding_with_the_least_number_merges_into_a_maximum(value, built, applied):
    model = padded(built, ("MaxPool", [], KERNEL), value=value)
    assert applied(rewrites.merge_padding, model) == (1, ["MaxPool"])


@pytest.mark.parametrize("before", ["Relu", "Sigmoid"])
@pytest.mark.parametrize("own", [{}, {"dilations": [2, 1]}, {"pads": [1, 1, 0, 1]}])
def test_padding_of_what_is_never_negative_merges_into_a_maximum(before, own, built, applied):
    model = padded(built, ("MaxPool", [], {**KERNEL, **own}), before=[before])
    assert applied(rewrites.merge_padding, model) == (1, [before, "MaxPool"])


@pytest.mark.parametrize(
    ("reader", "other"),
    [
        (("Conv", ["w"], KERNEL), {"value": 1.0}),
        (("Conv", ["w"], KERNEL), {"mode": "reflect"}),
        (("Conv", ["w"], KERNEL), {"pads": (0, 0, -1, 0, 0, 0, 1, 0)}),
        (("Conv", ["w"], KERNEL), {"pads": (1, 0, 1, 0, 0, 0, 1, 0)}),
        (("Conv", ["w"], {**KERNEL, "auto_pad": "SAME_UPPER"}), {}),
        (("AveragePool", [], {**KERNEL, "pads": [1, 0, 0, 0]}), {}),
        (("AveragePool", [], {**KERNEL, "ceil_mode": 1, "strides": [2, 2]}), {}),
        (("AveragePool", [], KERNEL), {"pads": (0, 0, 3, 0, 0, 0, 0, 0)}),
        (("MaxPool", [], KERNEL), {}),
        (("MaxPool", [], KERNEL), {"value": -1.0}),
        (("MaxPool", [], KERNEL), {"before": ["Tanh"]}),
        (("MaxPool", [], {**KERNEL, "pads": [2, 0, 0, 0]}), {"before": ["Relu"]}),
    ],
)
def test_other_padding_stays(reader, other, built, applied, random):
    model = padded(built, reader, **({"w": random(5, 4, 3, 3)} if reader[0] == "Conv" else {}), **other)
    count, operators = applied(rewrites.merge_padding, model)
    assert (count, operators[-2:]) == (0, ["Pad", reader[0]])


def test_padding_that_two_read_stays(built, applied, random):
    nodes = [
        ("Pad", ["x", "pads"], ["p"], {}),
        ("Conv", ["p", "w"], ["a"], KERNEL),
        ("Conv", ["p", "w"], ["b"], KERNEL),
        ("Add", ["a", "b"], ["y"], {}),
    ]
    model = built(nodes, {"pads": np.array(SPATIAL, np.int64), "w": random(5, 4, 3, 3)})
    assert applied(rewrites.merge_padding, model)[0] == 0


def test_after_quantizing_no_padding_stands_between_int8_kernels(built, random, after_quantizing):
    """The form of networks that come from TensorFlow: strided convolutions are padded on one side."""
    nodes = [
        ("Conv", ["x", "w1"], ["a"], {"kernel_shape": [3, 3]}),
        ("Relu", ["a"], ["r"], {}),
        ("Pad", ["r", "pads"], ["p"], {}),
        ("Conv", ["p", "w2"], ["b"], {"kernel_shape": [3, 3], "strides": [2, 2]}),
        ("Relu", ["b"], ["s"], {}),
        ("Pad", ["s", "pads"], ["q"], {}),
        ("MaxPool", ["q"], ["m"], {"kernel_shape": [3, 3]}),
        ("Conv", ["m", "w3"], ["y"], {"kernel_shape": [1, 1]}),
    ]
    constants = {"w1": random(16, 8, 3, 3), "w2": random(16, 16, 3, 3), "w3": random(16, 16, 1, 1)}
    pads = np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
    found = after_quantizing(built(nodes, {**constants, "pads": pads}, (8, 10, 10)))
    assert found["QLinearConv"] == 3
    assert not {"Pad", "Conv", "MaxPool"} & set(found)
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
