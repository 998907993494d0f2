"""Activations that are spelt out in arithmetic."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.quantize import rewrites

NUMBERS = {
    "half": 0.5,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "six": 6.0,
    "zero": 0.0,
    "root2": math.sqrt(2),
    "over_root2": math.sqrt(1 / 2),
    "k": math.sqrt(2 / math.pi),
    "c": 0.044715,
    "sixth": 1 / 6,
    "other": 1.7,
}


def spelt(built, lines, shape=(4, 8, 8), opset=20):
    """Lines such as "a = Mul x half"; the last one is the output."""
    nodes = []
    for line in lines.split(";"):
        made, _, op, *given = line.split()
        nodes.append((op, given, [made], {}))
    used = {name for _, given, _, _ in nodes for name in given if name in NUMBERS}
    constants = {name: np.array(NUMBERS[name], np.float32) for name in used}
    return built(nodes, constants, shape, opset=opset)


GELUS = [
    "d = Div x root2; e = Erf d; p = Add e one; m = Mul x p; y = Mul m half",
    "d = Mul over_root2 x; e = Erf d; p = Add one e; h = Mul x half; y = Mul h p",
    "d = Div x root2; e = Erf d; p = Add e one; h = Mul half p; y = Mul x h",
    "d = Div x root2; e = Erf d; h = Mul e half; p = Add h half; y = Mul p x",
    "d = Div x root2; e = Erf d; p = Add e one; m = Mul x p; y = Div m two",
]
REST = "e = Tanh u; p = Add e one; h = Mul x half; y = Mul h p"
TANHS = [
    f"q = Pow x three; t = Mul q c; s = Add x t; u = Mul s k; {REST}",
    f"q = Mul x x; r = Mul q x; t = Mul c r; s = Add t x; u = Mul k s; {REST}",
    f"a = Mul x k; q = Mul x x; r = Mul q c; s = Add one r; u = Mul a s; {REST}",
]


@pytest.mark.parametrize("lines", [*GELUS, *TANHS])
def test_a_gelu_is_found_however_it_is_spelt(lines, built, applied):
    assert applied(rewrites.name_activations, spelt(built, lines)) == (1, ["Gelu"])


@pytest.mark.parametrize(("lines", "form"), [(GELUS[0], "none"), (TANHS[0], "tanh")])
def test_the_two_gelus_are_not_taken_for_each_other(lines, form, built):
    """They differ by up to 5e-4, which a tolerance might overlook."""
    changed = ir.from_proto(spelt(built, lines))
    rewrites.name_activations(changed.graph)
    (node,) = changed.graph
    assert node.attributes.get_string("approximate") == form


@pytest.mark.parametrize(
    "lines",
    [
        "d = Div x two; e = Erf d; p = Add e one; m = Mul x p; y = Mul m half",
        "d = Div x root2; e = Erf d; p = Add e one; m = Mul x p; y = Mul m other",
        "d = Div x root2; e = Tanh d; p = Add e one; m = Mul x p; y = Mul m half",
        "d = Div x root2; e = Erf d; p = Add e one; n = Neg x; m = Mul n p; y = Mul m half",
        "z = Relu x; d = Div x root2; e = Erf d; p = Add e one; m = Mul z p; y = Mul m half",
    ],
)
def test_what_only_looks_like_a_gelu_stays(lines, built, applied):
    count, operators = applied(rewrites.name_activations, spelt(built, lines))
    assert (count, len(operators)) == (0, lines.count("="))


def test_before_opset_20_there_is_no_gelu(built, applied):
    assert applied(rewrites.name_activations, spelt(built, GELUS[0], opset=18))[0] == 0


def test_what_others_read_is_kept(built, applied):
    begin = GELUS[0].replace("y =", "g =")
    assert applied(rewrites.name_activations, spelt(built, f"{begin}; y = Add g p"))[0] == 0
    assert applied(rewrites.name_activations, spelt(built, f"{begin}; y = Add g d")) == (1, ["Div", "Gelu", "Add"])


def test_x_may_itself_be_a_sum(built, applied):
    lines = "s = Add x other; d = Div s root2; e = Erf d; p = Add e one; m = Mul s p; y = Mul m half"
    assert applied(rewrites.name_activations, spelt(built, lines)) == (1, ["Add", "Gelu"])


@pytest.mark.parametrize(
    "lines",
    [
        "a = Add x three; r = Clip a zero six; m = Mul x r; y = Div m six",
        "a = Add three x; r = Clip a zero six; h = Mul r sixth; y = Mul h x",
        "d = Div x six; a = Add d half; r = Clip a zero one; y = Mul x r",
    ],
)
def test_a_hard_swish_is_found_however_it_is_spelt(lines, built, applied):
    assert applied(rewrites.name_activations, spelt(built, lines)) == (1, ["HardSwish"])


def test_a_hard_sigmoid_times_its_input_is_a_hard_swish(built, applied):
    for alpha, left in ((1 / 6, ["HardSwish"]), (0.2, ["HardSigmoid", "Mul"])):
        nodes = [("HardSigmoid", ["x"], ["h"], {"alpha": alpha}), ("Mul", ["h", "x"], ["y"], {})]
        assert applied(rewrites.name_activations, built(nodes, {}))[1] == left


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("d = Div x six; a = Add d half; y = Clip a zero one", ["Div", "Add", "Clip"]),
        ("a = Add x three; r = Clip a zero six; y = Div r six", ["HardSigmoid"]),
        ("a = Add x three; r = Clip a zero six; g = Mul r sixth; n = Relu x; y = Mul n g", None),
        ("r = Clip x zero six; y = Div r six", ["Clip", "Div"]),
        ("a = Add x three; r = Clip a zero six; y = Div r two", ["Add", "Clip", "Div"]),
    ],
)
def test_a_hard_sigmoid_is_found(lines, left, built, applied):
    operators = applied(rewrites.name_activations, spelt(built, lines))[1]
    assert operators == (left or ["HardSigmoid", "Relu", "Mul"])
