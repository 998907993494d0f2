"""Graphs without writing operators: the same values, and mostly without a second trace."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from edgekit.export.functional import functional

aten = torch.ops.aten
X = torch.randn(3, 4, 6, 6)


def relus_in_place(x):
    return torch.tanh(x).relu_() * 2


def a_sum_in_place_after_another_reader(x):
    out = torch.sigmoid(x)
    out2 = out * 3
    out += x
    return out2 + out


def a_chain_in_place(x):
    out = torch.tanh(x)
    out += x
    return nn.functional.hardtanh_(out).mul_(2.0)


def a_reader_afterwards(x):
    """It reads what the graph has as the ReLU's result."""
    out = torch.tanh(x)
    after = out.relu_()
    return out + after.mean()


def a_view_before(x):
    out = torch.tanh(x)
    rows = out.view(out.shape[0], -1)
    out.relu_()
    return rows * 2


def a_slice(x):
    out = torch.tanh(x)
    out[:, :2] = 0.5
    return out


def another_type(x):
    counts = torch.ones_like(x, dtype=torch.float64)
    counts += x
    return counts


def an_input(x):
    return x.relu_() + 1


def without_gradients(x):
    with torch.no_grad():
        out = torch.tanh(x).relu_()
    return out + x


class Flat(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def traced(net):
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings(action="ignore"):
        return torch.export.export(net, (X,), dynamic_shapes=shapes)


def writing(program):
    return [
        node.target
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    ]


def assert_same(program, function):
    for size in (2, 5):
        x = torch.randn(size, *X.shape[1:])
        torch.testing.assert_close(program.module()(x.clone()), function(x.clone()), rtol=0, atol=0)


@pytest.mark.parametrize(
    "function",
    [
        relus_in_place,
        a_sum_in_place_after_another_reader,
        a_chain_in_place,
        a_reader_afterwards,
        lambda x: torch.tanh(x) + 1,
    ],
)
def test_what_nothing_else_reads_is_not_traced_again(function, monkeypatch):
    program = traced(Flat(function))
    monkeypatch.setattr(ExportedProgram, "run_decompositions", lambda *_: pytest.fail("traced again"))
    found = functional(program)
    assert writing(found) == []
    assert_same(found, function)


@pytest.mark.parametrize(
    "function",
    [a_view_before, a_slice, another_type, an_input, without_gradients],
)
def test_where_anything_else_could_tell_the_graph_is_traced_again(function):
    program = traced(Flat(function))
    found = functional(program)
    assert found is not program
    assert writing(found) == []
    x = torch.randn(2, *X.shape[1:])
    torch.testing.assert_close(found.module()(x.clone()), function(x.clone()), rtol=0, atol=0)


def test_statistics_that_are_kept_up_are_taken_for_writing():
    net = nn.BatchNorm2d(4).train()
    assert functional(traced(net)).graph_signature.buffers_to_mutate
    program = traced(net.eval())
    assert functional(program) is program
