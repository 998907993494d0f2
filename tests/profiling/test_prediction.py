"""The whole by its pieces: on a made-up device whose borders cost what theory asks, exactly; and on the anchor."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest

from edgekit.device.costs import Measured, MeasuredCosts
from edgekit.errors import EdgekitError
from edgekit.profiling import Prediction, anchored, error_of, graphs, pieces, predict, shares
from tests.profiling.conftest import Maker, quantized, residual

CALL_US, END_US = 5.0, 3.0
OPS_US = {"Conv": 20.0, "Relu": 1.5, "Add": 2.0, "GlobalAveragePool": 4.0, "Reshape": 0.5, "Gemm": 3.0, "Identity": 0.0}


def made_up(model: onnx.ModelProto) -> float:
    """A device where operators add up, a call costs something, and so does each input and output of a graph."""
    ops = Counter(node.op_type for node in model.graph.node)
    ends = len(model.graph.input) + len(model.graph.output)
    return CALL_US + sum(OPS_US[op] * count for op, count in ops.items()) + END_US * ends


def costs_of(found, spread=0.0):
    measured = {}
    for each in graphs(found):
        us = made_up(onnx.load_from_string(each.graph))
        measured[each.key] = Measured(us=us, low=us - spread, high=us + spread, n=9)
    return MeasuredCosts(threads=1, provider="cpu", measured=measured)


def chain(length):
    maker, value = Maker(), "x"
    for _ in range(length):
        value = maker.node("Relu", maker.conv(value, 3, 3))
    return maker.model(maker.node("GlobalAveragePool", value))


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_chain_is_told_exactly(length):
    found = pieces(chain(length))
    assert predict(found, costs_of(found)).us == pytest.approx(made_up(chain(length)))


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_branches_and_sums_are_told_exactly(blocks):
    found = pieces(residual(blocks=blocks))
    assert predict(found, costs_of(found)).us == pytest.approx(made_up(residual(blocks=blocks)))


def test_costs_of_one_network_tell_another_with_the_same_pieces():
    costs = costs_of(pieces(residual(blocks=3)))
    deep = residual(blocks=20, seed=1, prefix="other/")
    assert predict(pieces(deep), costs).us == pytest.approx(made_up(deep))


def test_shares_add_up_to_the_prediction():
    found = pieces(residual())
    costs = costs_of(found)
    rows = shares(found, costs)
    assert sum(row.us for row in rows) + costs.measured["call"].us == pytest.approx(predict(found, costs).us)
    assert [row.us for row in rows] == sorted((row.us for row in rows), reverse=True)


def test_the_interval_adds_independent_scatter():
    maker = Maker()
    found = pieces(maker.model(maker.node("GlobalAveragePool", "x")))
    told = predict(found, costs_of(found, spread=0.4))
    # T(piece) alone is left: the call is added once and taken off once.
    assert (told.us - told.low, told.high - told.us) == pytest.approx((0.4, 0.4))


def test_pieces_without_costs_are_named():
    found = pieces(residual())
    costs = costs_of(found)
    less = replace(costs, measured={key: row for key, row in costs.measured.items() if key != found[0].key})
    told = predict(found, less)
    assert told.missing == (found[0].text,)
    assert predict(found, costs).missing == ()


def test_what_is_wrong_in_the_same_way_cancels_on_an_anchor():
    wide, narrow = pieces(residual(blocks=4)), pieces(residual(blocks=2))
    costs = costs_of(wide)
    told = anchored(predict(narrow, costs), predict(wide, costs), 2 * made_up(residual(blocks=4)))
    assert told.us == pytest.approx(2 * made_up(residual(blocks=2)))


@pytest.mark.parametrize("measured", [0.0, -1.0])
def test_an_anchor_is_positive(measured):
    one = Prediction(us=1.0, low=1.0, high=1.0)
    with pytest.raises(EdgekitError, match="got"):
        anchored(one, one, measured)
    with pytest.raises(EdgekitError, match="no costs of x"):
        anchored(replace(one, missing=("x",)), one, 1.0)


def test_each_precision_has_its_known_error():
    assert error_of(pieces(residual())) != error_of(pieces(quantized()))
    assert all(
        0 < error.median <= error.worst < np.inf for error in map(error_of, (pieces(residual()), pieces(quantized())))
    )
