"""Transposed convolutions whose windows do not overlap."""

from __future__ import annotations

import pytest

from edgekit.quantize import rewrites

WRITTEN = ["Conv", "Transpose", "Reshape", "Transpose", "Reshape", "Transpose"]


@pytest.mark.parametrize("window", [(2, 2), (4, 4), (2, 3), (1, 1)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_transposed_convolution_without_overlap_becomes_a_convolution(window, biased, built, applied, random):
    inputs = ["x", "w", "b"] if biased else ["x", "w"]
    node = ("ConvTranspose", inputs, ["y"], {"kernel_shape": list(window), "strides": list(window)})
    model = built([node], {"w": random(4, 6, *window), **({"b": random(6)} if biased else {})}, (4, 8, 5))
    assert applied(rewrites.upsamplings_to_convolutions, model) == (1, WRITTEN)


@pytest.mark.parametrize("activation", ["Relu", "Clip"])
def test_an_activation_moves_before_the_places_change(activation, built, applied, random):
    bounds = {"low": random(1)[0], "high": abs(random(1)[0]) + 1} if activation == "Clip" else {}
    nodes = [
        ("ConvTranspose", ["x", "w"], ["c"], {"strides": [2, 2]}),
        (activation, ["c", *bounds], ["r"], {}),
        ("Neg", ["r"], ["y"], {}),
    ]
    model = built(nodes, {"w": random(4, 6, 2, 2), **bounds})
    expected = [WRITTEN[0], activation, *WRITTEN[1:], "Neg"]
    assert applied(rewrites.upsamplings_to_convolutions, model) == (1, expected)
    output = built(nodes[:2], {"w": random(4, 6, 2, 2), **bounds}, output="r")
    assert applied(rewrites.upsamplings_to_convolutions, output) == (1, [*WRITTEN, activation])


@pytest.mark.parametrize(
    "given",
    [
        {"strides": [1, 1]},
        {"strides": [2, 1]},
        {"strides": [2, 2], "pads": [1, 0, 0, 0]},
        {"strides": [2, 2], "output_padding": [1, 1]},
        {"strides": [2, 2], "dilations": [2, 2]},
        {"strides": [2, 2], "group": 2},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ],
    ids=["overlapping", "overlapping across", "padded", "extended", "dilated", "grouped", "automatic"],
)
def test_other_transposed_convolutions_stay(given, built, applied, random):
    model = built([("ConvTranspose", ["x", "w"], ["y"], given)], {"w": random(4, 3, 2, 2)})
    assert applied(rewrites.upsamplings_to_convolutions, model) == (0, ["ConvTranspose"])


def test_after_quantizing_an_upsampling_is_int8(built, random, after_quantizing):
    """A level of a U-Net."""
    nodes = [
        ("Conv", ["x", "w1", "b1"], ["c"], {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("Relu", ["c"], ["r"], {}),
        ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["p", "w2"], ["d"], {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("ConvTranspose", ["d", "w3", "b1"], ["u"], {"strides": [2, 2]}),
        ("Relu", ["u"], ["v"], {}),
        ("Concat", ["v", "r"], ["m"], {"axis": 1}),
        ("Conv", ["m", "w4"], ["y"], {"kernel_shape": [3, 3]}),
    ]
    constants = {"w1": random(16, 8, 3, 3), "b1": random(16), "w2": random(32, 16, 3, 3), "w3": random(32, 16, 2, 2)}
    found = after_quantizing(built(nodes, {**constants, "w4": random(4, 32, 3, 3)}, (8, 16, 16)))
    assert found["QLinearConv"] == 4
    assert not {"ConvTranspose", "Conv", "Relu"} & set(found)
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
    # On the way in, on the way out, and the one that puts rows in their places.
    assert found["Transpose"] == 3
