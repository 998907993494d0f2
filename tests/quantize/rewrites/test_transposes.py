"""Transposes that meet their inverse, and products over channels as convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.quantize import rewrites

LAST, FIRST = ("Transpose", (0, 2, 3, 1)), ("Transpose", (0, 3, 1, 2))


def chain(built, *steps, constants, shape=(4, 8, 8)):
    """Nodes that follow each other: (operator, order of axes or name of a constant or nothing)."""
    values, nodes = ["x", *(f"v{i}" for i in range(len(steps) - 1)), "y"], []
    for i, (op, *more) in enumerate(steps):
        turns = op == "Transpose"
        nodes.append(
            (op, [values[i], *([] if turns else more)], [values[i + 1]], {"perm": list(more[0])} if turns else {})
        )
    return built(nodes, constants, shape)


@pytest.mark.parametrize(
    ("between", "left"),
    [
        ([], []),
        (["Relu"], ["Relu"]),
        (["Sigmoid", "Tanh", "Gelu"], ["Sigmoid", "Tanh", "Gelu"]),
    ],
)
def test_inverse_transposes_vanish(between, left, built, applied):
    steps = [("Neg",), LAST, *((op,) for op in between), FIRST, ("Neg",)]
    assert applied(rewrites.cancel_transposes, chain(built, *steps, constants={})) == (1, ["Neg", *left, "Neg"])


@pytest.mark.parametrize("shape", [(4,), (8, 1), (1, 8, 8, 4), (1, 1, 1, 1), ()])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_constants_turn_with_what_they_are_added_to(shape, op, built, applied, random):
    model = chain(built, LAST, (op, "n"), FIRST, constants={"n": random(*shape) + 3})
    assert applied(rewrites.cancel_transposes, model) == (1, [op])


def test_a_sum_of_two_transposed_values_needs_none(built, applied):
    nodes = [
        ("Relu", ["x"], ["r"], {}),
        ("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}),
        ("Transpose", ["r"], ["b"], {"perm": [0, 2, 3, 1]}),
        ("Add", ["a", "b"], ["s"], {}),
        ("Transpose", ["s"], ["y"], {"perm": [0, 3, 1, 2]}),
    ]
    count, operators = applied(rewrites.cancel_transposes, built(nodes, {}))
    assert (count, operators[-1]) == (1, "Add")
    # Those that nobody reads any more are gone.
    assert "Transpose" not in operators


def test_a_transpose_that_others_read_stays_for_these(built, applied):
    nodes = [
        ("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}),
        ("Relu", ["a"], ["r"], {}),
        ("Transpose", ["r"], ["y"], {"perm": [0, 3, 1, 2]}),
        ("Neg", ["a"], ["z"], {}),
    ]
    count, operators = applied(rewrites.cancel_transposes, built(nodes, {}, output=["y", "z"]))
    assert (count, sorted(operators)) == (1, ["Neg", "Relu", "Transpose"])


@pytest.mark.parametrize(
    "steps",
    [
        [LAST, ("Relu",), LAST],
        [LAST, ("Softmax",), FIRST],
        [("Relu",), FIRST],
        [LAST, ("MatMul", "w"), FIRST],
    ],
    ids=["no inverse", "along an axis", "nothing to meet", "a product"],
)
def test_other_transposes_stay(steps, built, applied, random):
    model = chain(built, *steps, constants={"w": random(4, 6)} if ("MatMul", "w") in steps else {})
    assert applied(rewrites.cancel_transposes, model)[0] == 0


def test_a_value_in_between_that_is_read_elsewhere_stays(built, applied):
    nodes = [
        ("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}),
        ("Relu", ["a"], ["r"], {}),
        ("Transpose", ["r"], ["y"], {"perm": [0, 3, 1, 2]}),
        ("Neg", ["r"], ["z"], {}),
    ]
    assert applied(rewrites.cancel_transposes, built(nodes, {}, output=["y", "z"]))[0] == 0
    assert applied(rewrites.cancel_transposes, built(nodes[:3], {}, output=["y", "r"]))[0] == 0


def test_an_output_keeps_its_name(built, applied):
    nodes = [
        ("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}),
        ("Transpose", ["a"], ["y"], {"perm": [0, 3, 1, 2]}),
    ]
    # An input cannot take over the name of an output.
    assert applied(rewrites.cancel_transposes, built(nodes, {})) == (0, ["Transpose", "Transpose"])


def block(random, *, norm):
    """ConvNeXt's block; without its norm, no transpose is needed at all."""
    nodes = [
        ("Conv", ["x", "w", "b"], ["c"], {"kernel_shape": [7, 7], "pads": [3] * 4, "group": 16}),
        ("Transpose", ["c"], ["t"], {"perm": [0, 2, 3, 1]}),
        *([("LayerNormalization", ["t", "g", "h"], ["n"], {"axis": -1})] if norm else []),
        ("MatMul", ["n" if norm else "t", "w1"], ["m1"], {}),
        ("Add", ["m1", "b1"], ["a1"], {}),
        ("Gelu", ["a1"], ["e"], {}),
        ("MatMul", ["e", "w2"], ["m2"], {}),
        ("Add", ["b2", "m2"], ["a2"], {}),
        ("Transpose", ["a2"], ["u"], {"perm": [0, 3, 1, 2]}),
        ("Add", ["x", "u"], ["y"], {}),
    ]
    constants = {"w": random(16, 1, 7, 7), "b": random(16), "w1": random(16, 64), "b1": random(64)}
    constants |= {"w2": random(64, 16) / 8, "b2": random(1, 1, 16)}
    return nodes, {**constants, **({"g": random(16), "h": random(16)} if norm else {})}


def test_products_over_channels_become_convolutions(built, applied, random):
    model = built(*block(random, norm=True), (16, 8, 8))
    count, operators = applied(rewrites.linears_to_convolutions, model)
    assert count == 2
    # The biases are in the convolutions.
    assert operators == ["Conv", "Transpose", "LayerNormalization", "Transpose", "Conv", "Gelu", "Conv", "Add"]
    without = built(*block(random, norm=False), (16, 8, 8))
    assert applied(rewrites.linears_to_convolutions, without)[1] == ["Conv", "Conv", "Gelu", "Conv", "Add"]


def test_a_product_over_the_channels_of_a_sequence_becomes_a_convolution(built, applied, random):
    steps = [("Transpose", (0, 2, 1)), ("MatMul", "w"), ("Relu",), ("Transpose", (0, 2, 1))]
    model = chain(built, *steps, constants={"w": random(4, 6)}, shape=(4, 9))
    assert applied(rewrites.linears_to_convolutions, model) == (1, ["Conv", "Relu"])


def test_products_stay_where_transposes_would_become_more(built, applied, random):
    nodes = [
        ("Relu", ["x"], ["a"], {}),
        ("MatMul", ["a", "w"], ["m"], {}),
        ("Tanh", ["x"], ["t"], {}),
        ("Add", ["m", "t"], ["s"], {}),
        ("Transpose", ["s"], ["y"], {"perm": [0, 3, 1, 2]}),
    ]
    assert applied(rewrites.linears_to_convolutions, built(nodes, {"w": random(8, 8)}))[0] == 0


def test_after_quantizing_a_block_of_convnext_is_int8_up_to_its_sum(built, random, after_quantizing):
    nodes, constants = block(random, norm=True)
    nodes = [*nodes[:-1], ("Add", ["x", "u"], ["s"], {}), ("Conv", ["s", "w3"], ["y"], {"kernel_shape": [2, 2]})]
    model = built(nodes, {**constants, "w3": random(16, 16, 2, 2)}, (16, 8, 8))
    found = after_quantizing(model)
    assert found["QLinearConv"] == 4
    assert found["QLinearAdd"] == 1
    assert not {"MatMul", "MatMulIntegerToFloat", "Add", "BiasGelu", "Conv"} & set(found)
    assert found["LayerNormalization"] == found["Gelu"] == 1


def test_after_quantizing_no_relu_stands_between_two_transposes(built, random, after_quantizing):
    nodes = [
        ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3]}),
        ("Transpose", ["c"], ["t"], {"perm": [0, 2, 3, 1]}),
        ("Relu", ["t"], ["r"], {}),
        ("Transpose", ["r"], ["u"], {"perm": [0, 3, 1, 2]}),
        ("Conv", ["u", "v"], ["y"], {"kernel_shape": [3, 3]}),
    ]
    found = after_quantizing(built(nodes, {"w": random(16, 8, 3, 3), "v": random(8, 16, 3, 3)}, (8, 8, 8)))
    assert found["QLinearConv"] == 2
    assert "Relu" not in found
    assert np.sum(list(found.values())) == 6
