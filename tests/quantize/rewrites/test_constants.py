"""What depends on constants alone."""

from __future__ import annotations

import numpy as np

from edgekit.quantize import rewrites


def test_weights_in_two_steps_are_constants(built, applied, random):
    nodes = [
        ("Unsqueeze", ["flat", "axes"], ["w"], {}),
        ("Mul", ["w", "two"], ["v"], {}),
        ("Conv", ["x", "v"], ["c"], {"kernel_shape": [1, 1]}),
        ("Shape", ["w"], ["s"], {}),
        ("Concat", ["minus", "tail"], ["t"], {"axis": 0}),
        ("Reshape", ["c", "t"], ["y"], {}),
    ]
    constants = {
        "flat": random(6, 4),
        "axes": np.array([2, 3]),
        "two": np.float32(2.0),
        "minus": np.array([-1]),
        "tail": np.array([6, 64]),
    }
    assert applied(rewrites.fold_constants, built(nodes, constants))[1] == ["Conv", "Reshape"]


def test_what_depends_on_an_input_stays(built, applied, random):
    nodes = [("MatMul", ["x", "w"], ["m"], {}), ("Add", ["m", "b"], ["y"], {})]
    model = built(nodes, {"w": random(8, 6), "b": random(6)})
    assert applied(rewrites.fold_constants, model) == (0, ["MatMul", "Add"])


def test_after_quantizing_the_convolution_is_int8(built, random, after_quantizing):
    nodes = [
        ("Reshape", ["flat", "shape"], ["w"], {}),
        ("Conv", ["x", "w"], ["y"], {"kernel_shape": [3, 3]}),
    ]
    model = built(nodes, {"flat": random(16, 72), "shape": np.array([16, 8, 3, 3])}, (8, 8, 8))
    assert after_quantizing(model)["QLinearConv"] == 1
