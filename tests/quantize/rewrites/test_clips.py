"""ReLUs, Clips, minima and maxima that follow each other."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.quantize import rewrites

CONSTANTS = {"minus": -1.0, "zero": 0.0, "half": 0.5, "three": 3.0, "six": 6.0, "huge": float(np.finfo(np.float32).max)}
NUMBERS = {name: np.array(number, np.float32) for name, number in CONSTANTS.items()}


def chain(built, *steps, **more):
    """Nodes that follow each other: ("Clip", "zero", "six"), ("Relu",)."""
    values = ["x", *(f"v{i}" for i in range(len(steps) - 1)), "y"]
    nodes = [(op, [values[i], *names], [values[i + 1]], {}) for i, (op, *names) in enumerate(steps)]
    used = {name for _, *names in steps for name in names if name}
    return built(nodes, {name: array for name, array in {**NUMBERS, **more}.items() if name in used})


def bounds(model, one_pass=rewrites.merge_clips):
    """The bounds of the one Clip that is left."""
    changed = ir.from_proto(model)
    one_pass(changed.graph)
    (node,) = changed.graph
    assert node.op_type == "Clip"
    return [None if value is None else float(value.const_value.numpy()) for value in node.inputs[1:]]


@pytest.mark.parametrize(
    ("steps", "left", "cut"),
    [
        ((("Relu",), ("Clip", "zero", "six")), 1, [0.0, 6.0]),
        ((("Clip", "zero", "six"), ("Relu",)), 1, [0.0, 6.0]),
        ((("Clip", "minus", "six"), ("Relu",)), 1, [0.0, 6.0]),
        ((("Clip", "minus", "six"), ("Clip", "zero", "three")), 1, [0.0, 3.0]),
        ((("Clip", "zero", "half"), ("Clip", "three", "six")), 1, [3.0, 3.0]),
        ((("Max", "zero"), ("Min", "six")), 2, [0.0, 6.0]),
        ((("Min", "six"), ("Max", "zero")), 2, [0.0, 6.0]),
        ((("Min", "six", "three"), ("Min", "half")), 2, [None, 0.5]),
        ((("Relu",), ("Min", "six"), ("Relu",)), 2, [0.0, 6.0]),
    ],
)
def test_chains_become_one_clip(steps, left, cut, built, applied):
    model = chain(built, *steps)
    assert applied(rewrites.merge_clips, model) == (left, ["Clip"])
    assert bounds(model) == cut


@pytest.mark.parametrize(
    "steps",
    [
        [("Relu",), ("Relu",)],
        [("Clip", "zero")],
        [("Clip", "zero", "huge")],
        [("Max", "zero")],
        [("Relu",), ("Clip", "minus")],
        [("Clip", "minus"), ("Relu",), ("Max", "minus")],
    ],
)
def test_what_only_cuts_at_zero_becomes_a_relu(steps, built, applied):
    count, operators = applied(rewrites.merge_clips, chain(built, *steps))
    assert (count > 0, operators) == (True, ["Relu"])


@given(st.lists(st.tuples(*[st.sampled_from([None, -2.0, -1.0, 0.0, 0.5, 2.0])] * 2), min_size=2, max_size=4))
def test_any_clips_in_a_row_are_one_clip(built, applied, pairs):
    constants = {
        f"n{i}{j}": np.array(v, np.float32) for i, p in enumerate(pairs) for j, v in enumerate(p) if v is not None
    }
    steps = [("Clip", *(f"n{i}{j}" if v is not None else "" for j, v in enumerate(p))) for i, p in enumerate(pairs)]
    # Bounds that are the wrong way round are legal: the upper one wins.
    count, operators = applied(rewrites.merge_clips, chain(built, *steps, **constants))
    assert count >= len(pairs) - 1
    assert len(operators) == 1


def test_a_value_that_others_read_is_kept(built, applied):
    nodes = [
        ("Relu", ["x"], ["a"], {}),
        ("Clip", ["a", "zero", "six"], ["b"], {}),
        ("Add", ["a", "b"], ["y"], {}),
    ]
    model = built(nodes, {name: NUMBERS[name] for name in ("zero", "six")})
    assert applied(rewrites.merge_clips, model) == (0, ["Relu", "Clip", "Add"])
    again = [("Relu", ["x"], ["a"], {}), ("Relu", ["a"], ["b"], {}), ("Add", ["a", "b"], ["y"], {})]
    assert applied(rewrites.merge_clips, built(again, {})) == (1, ["Relu", "Add"])


def test_an_output_in_the_middle_keeps_its_name_and_its_numbers(built, applied):
    nodes = [("Clip", ["x", "minus", "six"], ["a"], {}), ("Relu", ["a"], ["y"], {})]
    model = built(nodes, {name: NUMBERS[name] for name in ("minus", "six")}, output=["a", "y"])
    assert applied(rewrites.merge_clips, model) == (0, ["Clip", "Relu"])


@pytest.mark.parametrize(
    ("op", "constant"),
    [
        ("Min", np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], np.float32)),
        ("Max", np.zeros((1, 1, 1, 1, 1), np.float32)),
    ],
    ids=["a bound for each column", "a constant that widens the shape"],
)
def test_what_is_no_single_bound_stays(op, constant, built, applied):
    model = built([(op, ["x", "c"], ["y"], {})], {"c": constant})
    assert applied(rewrites.merge_clips, model) == (0, [op])


def test_a_maximum_of_two_values_and_bounds_that_are_computed_stay(built, applied):
    nodes = [
        ("Neg", ["x"], ["n"], {}),
        ("Max", ["x", "n"], ["m"], {}),
        ("ReduceMean", ["x"], ["r"], {"keepdims": 0}),
        ("Clip", ["m", "", "r"], ["y"], {}),
    ]
    assert applied(rewrites.merge_clips, built(nodes, {}))[0] == 0


def test_after_quantizing_a_relu_and_a_minimum_are_part_of_the_convolution(built, random, after_quantizing):
    nodes = [
        ("Conv", ["x", "w", "b"], ["c"], {"kernel_shape": [3, 3]}),
        ("Relu", ["c"], ["r"], {}),
        ("Min", ["r", "six"], ["m"], {}),
        ("Conv", ["m", "v"], ["y"], {"kernel_shape": [1, 1]}),
    ]
    weights = {"w": random(16, 8, 3, 3), "b": random(16), "v": random(8, 16, 1, 1), "six": NUMBERS["six"]}
    found = after_quantizing(built(nodes, weights, (8, 8, 8)))
    assert found["QLinearConv"] == 2
    assert not {"Relu", "Min", "Clip"} & set(found)
