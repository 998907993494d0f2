"""Nodes that change nothing."""

from __future__ import annotations

import numpy as np

from edgekit.quantize import rewrites


def test_no_ops_go(built, applied):
    nodes = [
        ("Identity", ["x"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("Add", ["zero", "b"], ["d"], {}),
        ("Dropout", ["d"], ["e"], {}),
        ("Sub", ["e", "zero"], ["y"], {}),
    ]
    model = built(nodes, {"zero": np.zeros(1, np.float32)})
    count, operators = applied(rewrites.remove_no_ops, model)
    assert (count, operators) == (4, ["Relu"])


def test_what_changes_something_stays(built, applied):
    wide = built(
        [("Relu", ["x"], ["r"], {}), ("Add", ["r", "zero"], ["y"], {})], {"zero": np.zeros((5, 1, 1, 1, 1), np.float32)}
    )
    assert applied(rewrites.remove_no_ops, wide)[0] == 0
    half = built([("Add", ["x", "half"], ["y"], {})], {"half": np.full(1, 0.5, np.float32)})
    assert applied(rewrites.remove_no_ops, half)[0] == 0
    back = built([("Sub", ["zero", "x"], ["y"], {})], {"zero": np.zeros(1, np.float32)})
    assert applied(rewrites.remove_no_ops, back)[0] == 0
