"""Traces of recurrent networks: the same as PyTorch's own, without walking through time."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._decomp import decomposition_table, decompositions

from edgekit.workload.tracing import whole_layers

# torch.export warns of flat weights that recurrent modules keep beside their parameters.
pytestmark = pytest.mark.filterwarnings("ignore:The tensor attribute:UserWarning")

KINDS = [
    ("gru", nn.GRU, {}),
    ("gru", nn.GRU, {"bidirectional": True, "batch_first": False}),
    ("lstm", nn.LSTM, {"num_layers": 3}),
    ("lstm", nn.LSTM, {"proj_size": 2, "bidirectional": True}),
    ("rnn_tanh", nn.RNN, {}),
    ("rnn_relu", nn.RNN, {"nonlinearity": "relu", "bias": False}),
]


class Reader(nn.Module):
    def __init__(self, kind, options):
        super().__init__()
        self.layer = kind(3, 5, **{"num_layers": 2, "batch_first": True, **options})

    def forward(self, x):
        y, states = self.layer(x)
        first = states[0] if isinstance(states, tuple) else states
        return y * 2, first.sum(0), y[:, -1], y.reshape(-1)


def traced(net, *axes):
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    return torch.export.export(net, (torch.randn(2, 7, 3),), dynamic_shapes=shapes)


def said(program):
    """Nodes with the shapes, strides and types of what they give; names of open sizes by their order."""
    symbols: dict[str, int] = {}

    def size(value):
        return value if isinstance(value, int) else f"s{symbols.setdefault(str(value), len(symbols))}"

    rows = []
    for node in program.graph.nodes:
        values = node.meta.get("val")
        values = values if isinstance(values, (tuple, list)) else [values]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        about = [([*map(size, t.shape)], [*map(size, t.stride())], t.dtype) for t in tensors]
        rows.append((node.op, str(node.target), about))
    return rows


@pytest.mark.parametrize(("name", "kind", "options"), KINDS)
def test_a_trace_is_the_same_with_and_without_the_formulas(name, kind, options):
    net = Reader(kind, options).eval()
    samples = 0 if net.layer.batch_first else 1
    own = said(traced(net, samples))
    assert f"aten.{name}.input" in [target for _, target, _ in own]
    (given,) = (about for _, target, about in own if target == f"aten.{name}.input")
    if any(len(shape) != 3 for shape, *_ in given):
        pytest.skip(f"PyTorch {torch.__version__} takes last states to have an axis that they have not")
    with whole_layers():
        found = traced(net, samples)
    assert said(found) == own


@pytest.mark.parametrize(("name", "kind", "options"), KINDS)
def test_the_number_of_steps_may_stay_open(name, kind, options):
    """Formulas would count them."""
    net = Reader(kind, options).eval()
    with whole_layers():
        program = traced(net, 0, 1)
    assert f"aten.{name}.input" in [str(node.target) for node in program.graph.nodes]
    x = torch.randn(4, 9, 3)
    for mine, wanted in zip(program.module()(x), net(x), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_no_step_is_walked_and_the_formulas_are_back_in_the_end(monkeypatch):
    operator = torch.ops.aten.gru.input
    before = dict(operator.py_kernels), decomposition_table[operator]
    monkeypatch.setattr(decompositions, "gru_cell", lambda *_: pytest.fail("walked"))

    def interrupted():
        with whole_layers():
            traced(Reader(nn.GRU, {}).eval(), 0)
            assert before != (dict(operator.py_kernels), decomposition_table[operator])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert before == (dict(operator.py_kernels), decomposition_table[operator])
