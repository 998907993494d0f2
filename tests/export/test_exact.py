from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.export import export
from edgekit.export.exact import simplify
from edgekit.workload import Batch

aten = torch.ops.aten


def simplified(function, *tensors):
    """The operators left after `simplify`, and whether the program still computes the same."""

    class Module(nn.Module):
        def forward(self, *tensors):
            return function(*tensors)

    shapes = (tuple({0: torch.export.Dim.DYNAMIC} for _ in tensors),)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)  # torch, by itself
        program = simplify(torch.export.export(Module().eval(), tensors, dynamic_shapes=shapes))
        for size in (2, 5):
            given = [torch.randn(size, *tensor.shape[1:]) for tensor in tensors]
            torch.testing.assert_close(program.module()(*given), function(*given), rtol=0, atol=0)
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    # Sizes and assertions compute no values.
    return [call for call in calls if "sym_size" not in str(call) and "_assert" not in str(call)]


X = torch.randn(3, 4, 6, 6)


@pytest.mark.parametrize(
    "zeros",
    [
        lambda x: x.new_zeros((x.shape[0], 4, 6, 6)),
        lambda x: torch.zeros(x.shape[0], 4, 6, 6),
        torch.zeros_like,
        lambda x: torch.full((x.shape[0], 4, 6, 6), 0.0),
        lambda x: x.new_full((x.shape[0], 4, 6, 6), 0),
    ],
)
def test_added_zeros_go_with_all_that_made_them(zeros):
    assert simplified(lambda x: torch.sigmoid(x + zeros(x)), X) == [aten.sigmoid.default]
    assert simplified(lambda x: torch.sigmoid(zeros(x) + x), X) == [aten.sigmoid.default]
    assert simplified(lambda x: torch.sigmoid(x - zeros(x)), X) == [aten.sigmoid.default]


def test_zeros_added_in_place_go_too():
    def function(x):
        out = torch.tanh(x)
        out += x.new_zeros(x.shape)
        return torch.relu(out)

    assert simplified(function, X) == [aten.tanh.default, aten.relu.default]


def test_what_is_not_the_same_stays():
    # Zeros of another shape broadcast; 0 - x negates; ones are no zeros; alpha scales the other side.
    assert aten.add.Tensor in simplified(lambda x: x[:, :1] + x.new_zeros((x.shape[0], 4, 6, 6)), X)
    assert aten.sub.Tensor in simplified(lambda x: x.new_zeros(x.shape) - x, X)
    assert aten.add.Tensor in simplified(lambda x: x + x.new_full(x.shape, 1.0), X)
    assert aten.add.Tensor in simplified(lambda x: torch.add(x.new_zeros(x.shape), x, alpha=2), X)
    assert (
        simplified(lambda x: torch.relu(nn.functional.pad(torch.relu(x), (1, 1), value=-1)), X).count(aten.relu.default)
        == 2
    )
    assert simplified(lambda x: torch.relu(torch.relu(x) - 1), X).count(aten.relu.default) == 2
    assert aten.reshape.default in simplified(lambda x: x.reshape(x.shape[0], 24, 6) + 1, X)
    assert aten.slice.Tensor in simplified(lambda x: x[:, :, ::2] + 1, X)


def test_doubled_relu_and_no_ops_go():
    assert simplified(lambda x: torch.relu(torch.relu(x)), X) == [aten.relu.default]

    def shortcut(x):
        return torch.relu(nn.functional.pad(torch.relu(x)[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))

    assert simplified(shortcut, X).count(aten.relu.default) == 1

    def nothing(x):
        x = nn.functional.dropout(x, training=False).contiguous().clone().float()
        x = x.view(x.shape)[:, 0:].permute(0, 1, 2, 3)
        return torch.sigmoid(nn.functional.pad(x, (0, 0, 0, 0)))

    assert simplified(nothing, X) == [aten.sigmoid.default]


def test_an_output_that_is_an_input_plus_zeros():
    assert simplified(lambda x: x + torch.zeros_like(x), X) == []


def test_a_copy_that_a_later_view_needs_stays():
    assert aten.contiguous.default in simplified(lambda x: x.transpose(1, 3).contiguous().view(x.shape[0], -1) * 2, X)


class ZeroBranch(nn.Module):
    """What a pruned residual branch leaves."""

    def forward(self, x):
        return x.new_zeros((x.shape[0], 8, 6, 6))


class Block(nn.Module):
    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        out = self.branch(x)
        out += x
        return torch.relu(out)


def test_no_trace_of_a_pruned_block_is_in_the_file(tmp_path, operators, run):
    live = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Block(ZeroBranch()), Block(live), Block(ZeroBranch()), head
    )
    model.eval()
    x = torch.randn(2, 3, 6, 6)
    exported = export(model, Batch((x,), {}, None), tmp_path / "net.onnx")
    assert operators(exported.path) == Counter(Conv=2, Relu=2, Add=1, GlobalAveragePool=1, Reshape=1, Gemm=1)
    with torch.no_grad():
        np.testing.assert_allclose(run(exported, x)[0], model(x).numpy(), rtol=1e-3, atol=1e-6)
