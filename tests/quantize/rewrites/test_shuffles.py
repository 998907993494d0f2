"""Channel shuffles as part of weights."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.quantize import rewrites

CHANNELS, GROUPS = 12, 3


def shuffle(gathered, source, made):
    """The nodes and constants of a shuffle."""
    if gathered:
        order = np.arange(CHANNELS).reshape(GROUPS, -1).T.ravel()
        return [("Gather", [source, "order"], [made], {"axis": 1})], {"order": order}
    return [
        ("Reshape", [source, "apart"], ["s1"], {}),
        ("Transpose", ["s1"], ["s2"], {"perm": [0, 2, 1, 3, 4]}),
        ("Reshape", ["s2", "together"], [made], {}),
    ], {"apart": np.array([0, GROUPS, -1, 8, 8]), "together": np.array([0, CHANNELS, 8, 8])}


def depthwise(source, made):
    return ("Conv", [source, "d", "e"], [made], {"kernel_shape": [3, 3], "pads": [1] * 4, "group": CHANNELS})


@pytest.fixture
def weights(random):
    return {"w": random(5, CHANNELS, 1, 1), "d": random(CHANNELS, 1, 3, 3), "e": random(CHANNELS)}


@pytest.mark.parametrize("gathered", [True, False])
def test_a_shuffle_folds_into_what_reads_it(gathered, built, applied, weights):
    nodes, constants = shuffle(gathered, "r", "s")
    nodes = [("Relu", ["x"], ["r"], {}), *nodes, ("Conv", ["s", "w"], ["y"], {"kernel_shape": [1, 1]})]
    model = built(nodes, {**constants, "w": weights["w"]}, (CHANNELS, 8, 8))
    assert applied(rewrites.fold_shuffles, model) == (1, ["Relu", "Conv"])


@pytest.mark.parametrize("gathered", [True, False])
def test_a_depthwise_convolution_hands_it_on(gathered, built, applied, weights):
    """The end of a stage of ShuffleNet."""
    nodes, constants = shuffle(gathered, "x", "s")
    nodes = [
        *nodes,
        depthwise("s", "a"),
        ("Conv", ["a", "w"], ["p"], {"kernel_shape": [1, 1]}),
        ("Relu", ["s"], ["b"], {}),
        ("Conv", ["b", "w"], ["q"], {"kernel_shape": [1, 1]}),
        ("Add", ["p", "q"], ["y"], {}),
    ]
    model = built(nodes, {**constants, **weights}, (CHANNELS, 8, 8))
    assert applied(rewrites.fold_shuffles, model) == (1, ["Conv", "Conv", "Relu", "Conv", "Add"])


def test_a_shuffle_with_other_readers_stays(built, applied, weights, random):
    nodes, constants = shuffle(gathered=True, source="x", made="s")
    conv = ("Conv", ["s", "w"], ["c"], {"kernel_shape": [1, 1]})
    split = [*nodes, ("Split", ["s"], ["a", "b"], {"axis": 1, "num_outputs": 2}), ("Add", ["a", "b"], ["y"], {})]
    assert applied(rewrites.fold_shuffles, built(split, constants, (CHANNELS, 8, 8)))[0] == 0
    output = built([*nodes, conv], {**constants, "w": weights["w"]}, (CHANNELS, 8, 8), output=["s", "c"])
    assert applied(rewrites.fold_shuffles, output)[0] == 0
    ends = built([*nodes, depthwise("s", "y")], {**constants, "d": weights["d"], "e": weights["e"]}, (CHANNELS, 8, 8))
    assert applied(rewrites.fold_shuffles, ends)[0] == 0
    grouped = [*nodes, ("Conv", ["s", "w"], ["y"], {"kernel_shape": [1, 1], "group": 2})]
    model = built(grouped, {**constants, "w": random(4, CHANNELS // 2, 1, 1)}, (CHANNELS, 8, 8))
    assert applied(rewrites.fold_shuffles, model)[0] == 0


@pytest.mark.parametrize(
    "steps",
    [
        ([0, 3, 4, 8, 8], [0, 1, 2, 3, 4], [0, 12, 8, 8]),
        ([0, 3, 4, 8, 8], [0, 2, 1, 4, 3], [0, 12, 8, 8]),
        ([0, 3, 4, 16, 4], [0, 2, 1, 3, 4], [0, 12, 8, 8]),
        ([0, 3, 4, 8, 8], [0, 2, 1, 3, 4], [0, 6, 16, 8]),
    ],
)
def test_what_only_looks_like_a_shuffle_stays(steps, built, applied, random):
    apart, order, together = steps
    nodes = [
        ("Reshape", ["x", "apart"], ["s1"], {}),
        ("Transpose", ["s1"], ["s2"], {"perm": order}),
        ("Reshape", ["s2", "together"], ["s"], {}),
        ("Conv", ["s", "w"], ["y"], {"kernel_shape": [1, 1]}),
    ]
    constants = {"apart": np.array(apart), "together": np.array(together), "w": random(5, together[1], 1, 1)}
    assert applied(rewrites.fold_shuffles, built(nodes, constants, (CHANNELS, 8, 8)))[0] == 0


def test_a_gather_that_repeats_channels_stays(built, applied, random):
    nodes = [("Gather", ["x", "o"], ["s"], {"axis": 1}), ("Conv", ["s", "w"], ["y"], {"kernel_shape": [1, 1]})]
    for order in ([0, 0, 1, 2], [1, 2, 3], [-1, 0, 1, 2]):
        model = built(nodes, {"o": np.array(order), "w": random(5, len(order), 1, 1)})
        assert applied(rewrites.fold_shuffles, model)[0] == 0


def test_after_quantizing_a_shuffle_that_stays_is_int8(built, random, after_quantizing):
    nodes, constants = shuffle(gathered=False, source="c", made="s")
    nodes = [
        ("Conv", ["x", "v"], ["c"], {"kernel_shape": [3, 3], "pads": [1] * 4}),
        *nodes,
        ("Split", ["s"], ["a", "b"], {"axis": 1, "num_outputs": 2}),
        ("Conv", ["a", "w"], ["p"], {"kernel_shape": [1, 1]}),
        ("Concat", ["b", "p"], ["y"], {"axis": 1}),
    ]
    constants |= {"v": random(CHANNELS, 8, 3, 3), "w": random(CHANNELS // 2, CHANNELS // 2, 1, 1)}
    found = after_quantizing(built(nodes, constants, (8, 8, 8)))
    assert found["QLinearConv"] == 2
    assert found["QuantizeLinear"] == found["DequantizeLinear"] == 1
