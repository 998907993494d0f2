"""Activations that a model writes out in arithmetic as the operators that they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from edgekit.quantize.graph import constant, drop_unused_nodes, only_user, replace, scalar

DEPTH = 6
"""So many operators of arithmetic are looked through: tanh's GELU has five before the tanh, and three behind it."""
NEAR = 1e-5
"""Relative difference of coefficients that are the same: they come as decimals, and in fp32."""

Powers = Mapping[tuple[int, int], float]
"""A polynomial of two values x and f: for x to the power i times f to the power j its coefficient."""
Operator = tuple[str, dict[str, float | str]]
"""A type of node, and its attributes."""
ONE, X, F, XF = (0, 0), (1, 0), (0, 1), (1, 1)
GELU: Powers = {X: 0.5, XF: 0.5}
"""x / 2 * (1 + f) with f = erf(x / sqrt(2)), or about so f = tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)) (D. Hendrycks,
K. Gimpel, *Gaussian Error Linear Units*, 2016, section 2)."""
ERF: Powers = {X: math.sqrt(1 / 2)}
TANH: Powers = {X: math.sqrt(2 / math.pi), (3, 0): math.sqrt(2 / math.pi) * 0.044715}
OPSET = {"Gelu": 20, "HardSwish": 14, "HardSigmoid": 1}
"""Since when there are these operators."""


def name_activations(graph: ir.Graph) -> int:
    """Write GELU, HardSigmoid and HardSwish as one operator where they are spelt out.

    What surrounds the error function, the hyperbolic tangent or the Clip is read as a polynomial, so that the order of
    sums and products, and which constants were multiplied ahead of time, make no difference.
    """
    done = sum(_name(graph, node) for node in list(graph) if node.op_type in ("Erf", "Tanh", "Clip", "HardSigmoid"))
    if done:
        drop_unused_nodes(graph)
    return done


def _name(graph: ir.Graph, node: ir.Node) -> bool:
    inner, f = node.inputs[0], node.outputs[0]
    if inner is None or inner.dtype != ir.DataType.FLOAT:
        return False
    named = _gelu if node.op_type in ("Erf", "Tanh") else _hard
    # The furthest first: a HardSwish holds a HardSigmoid.
    for x in reversed(list(_leading_to(inner))):
        inside = polynomial(inner, x)
        for end in reversed(list(_behind(f))) if inside else ():
            outside, last = polynomial(end, x, f), end.producer()
            found = named(node, inside, outside) if inside and outside else None
            if found is None or last is None or last is node or graph.opset_imports.get("", 0) < OPSET[found[0]]:
                continue
            replace(graph, last, ir.node(found[0], [x], found[1], name=last.name))
            return True
    return False


def _gelu(node: ir.Node, inside: Powers, outside: Powers) -> Operator | None:
    exact = node.op_type == "Erf"
    if _same(inside, ERF if exact else TANH) and _same(outside, GELU):
        return "Gelu", {"approximate": "none" if exact else "tanh"}
    return None


def _hard(node: ir.Node, inside: Powers, outside: Powers) -> Operator | None:
    """HardSigmoid or HardSwish: outside * min(max(slope * x + shift, 0), top)."""
    slope, shift, top = inside.get(X, 0.0), inside.get(ONE, 0.0), 1.0
    if node.op_type == "HardSigmoid":
        alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
        slope, shift = alpha * slope, alpha * shift + beta
    else:
        bounds = [constant(value) for value in [*node.inputs, None, None][1:3]]
        if bounds[0] is None or bounds[1] is None or bounds[0].item() != 0.0:
            return None
        top = float(bounds[1].item())
    factor = outside.get(F, 0.0) + outside.get(XF, 0.0)
    # Without a shift, it is a ReLU6 before a factor.
    if set(inside) > {X, ONE} or shift <= 0.0 or not math.isclose(factor * top, 1.0, rel_tol=NEAR):
        return None
    if _same(outside, {F: factor}):
        return "HardSigmoid", {"alpha": factor * slope, "beta": factor * shift}
    swish = _same(outside, {XF: factor}) and _same({X: factor * slope, ONE: factor * shift}, {X: 1 / 6, ONE: 0.5})
    return ("HardSwish", {}) if swish else None


def polynomial(value: ir.Value | None, x: ir.Value, f: ir.Value | None = None, depth: int = DEPTH) -> Powers | None:
    """A value as a polynomial of x and f, or None if it depends on anything else, or on these in another way."""
    number = scalar(value, x)
    if value is x or (f is not None and value is f) or number is not None:
        return {X: 1.0} if value is x else {F: 1.0} if number is None else {ONE: number}
    node = None if value is None else value.producer()
    if node is None or depth == 0 or node.op_type not in ARITHMETIC or node.domain not in ("", "ai.onnx"):
        return None
    parts = [polynomial(each, x, f, depth - 1) for each in node.inputs]
    if any(part is None for part in parts):
        return None
    return ARITHMETIC[node.op_type](*parts)


def _sum(one: Powers, other: Powers) -> Powers:
    return {powers: one.get(powers, 0.0) + other.get(powers, 0.0) for powers in {**one, **other}}


def _negative(one: Powers) -> Powers:
    return {powers: -number for powers, number in one.items()}


def _product(one: Powers, other: Powers) -> Powers:
    result: dict[tuple[int, int], float] = {}
    for (i, j), a in one.items():
        for (k, m), b in other.items():
            result[i + k, j + m] = result.get((i + k, j + m), 0.0) + a * b
    return result


def _quotient(one: Powers, other: Powers) -> Powers | None:
    number = other.get(ONE, 0.0)
    return None if set(other) != {ONE} or number == 0.0 else _product(one, {ONE: 1 / number})


def _power(one: Powers, other: Powers) -> Powers | None:
    if _same(other, {ONE: 3.0}):
        return _product(one, _product(one, one))
    return _product(one, one) if _same(other, {ONE: 2.0}) else None


ARITHMETIC: Mapping[str, Callable[..., Powers | None]] = {
    "Add": _sum,
    "Sub": lambda one, other: _sum(one, _negative(other)),
    "Mul": _product,
    "Div": _quotient,
    "Neg": _negative,
    "Pow": _power,
}


def _same(one: Powers, other: Powers) -> bool:
    return all(math.isclose(one.get(p, 0.0), other.get(p, 0.0), rel_tol=NEAR) for p in {**one, **other})


def _leading_to(value: ir.Value) -> Iterator[ir.Value]:
    """A value, and what it is computed from by arithmetic, the nearest first."""
    level = [value]
    for _ in range(DEPTH):
        yield from level
        makers = [maker for each in level if (maker := each.producer()) is not None and maker.op_type in ARITHMETIC]
        level = list(
            {id(v): v for node in makers for v in node.inputs if v is not None and constant(v) is None}.values()
        )


def _behind(value: ir.Value) -> Iterator[ir.Value]:
    """A value, and what arithmetic makes of it step by step, as long as nothing else reads what is between."""
    for _ in range(DEPTH):
        yield value
        user = next(iter(value.uses())).node if only_user(value) else None
        if user is None or user.op_type not in ARITHMETIC:
            return
        value = user.outputs[0]
