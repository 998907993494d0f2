"""Means over space, and average pools."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.quantize import rewrites


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_space_becomes_a_pool(keepdims, built, applied):
    nodes = [("ReduceMean", ["x", "axes"], ["y"], {"keepdims": keepdims})]
    count, operators = applied(rewrites.pool_spatial_means, built(nodes, {"axes": np.array([-1, 2], np.int64)}))
    assert (count, operators[0]) == (1, "GlobalAveragePool")


@pytest.mark.parametrize("axes", [[1], [2], [1, 2, 3], [0, 2, 3]])
def test_other_means_stay(axes, built, applied):
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
def test_an_average_pool_becomes_a_depthwise_convolution(given, built, applied):
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
def test_other_average_pools_stay(given, built, applied):
    model = built([("AveragePool", ["x"], ["y"], given)], {})
    assert applied(rewrites.average_pools_to_convolutions, model) == (0, ["AveragePool"])
