"""A plan applied to the exported graph, against the export of the network that the plan was applied to."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.errors import PruneError
from edgekit.export import export
from edgekit.prune import analyse, apply, make_plan, prune_graph
from edgekit.workload import Batch


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((16, 1, 1), 0.5))

    def forward(self, x):
        return self.gamma * x


class Residual(nn.Module):
    """Convolutions with BatchNorm, a projection, depthwise layers, and a scaled branch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.wide = nn.Sequential(nn.Conv2d(16, 32, 1), nn.ReLU6(), nn.Conv2d(32, 32, 3, padding=1, groups=32))
        self.back = nn.Conv2d(32, 16, 1)
        self.scale = Scale()
        self.head = nn.Sequential(nn.Linear(16, 24), nn.GELU(), nn.Linear(24, 5))

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.second(self.first(x)))
        x = x + self.scale(self.back(self.wide(x)))
        return self.head(x.mean((2, 3)))


class Tokens(nn.Module):
    """Linear layers on sequences, which are exported as products with the transposed weight."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(x + self.down(torch.relu(self.up(x))))


class Flat(nn.Module):
    """The flattened size is a number in the graph."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 4, 5)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(torch.relu(self.conv(x)), 2).flatten(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm, self.head = nn.Linear(4, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.lstm(torch.relu(self.embed(x)))[0][:, -1])


def answers(model, x):
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def reshapes(model):
    """Sizes and attributes as they are written: costs of pieces are known by them."""
    return [
        (node.inputs[1].const_value.numpy().tolist(), {name: each.value for name, each in node.attributes.items()})
        for node in model.graph
        if node.op_type == "Reshape"
    ]


@pytest.mark.parametrize(
    ("make", "shape", "kept", "blocks"),
    [
        (Residual, (2, 3, 9, 9), {"first.0": range(0, 24, 3), "wide.0": range(8), "head.0": range(5, 20)}, []),
        (Residual, (2, 3, 9, 9), {"stem.0": [1, 2, 3, 9], "wide.0": range(9)}, ["first.0"]),
        (Residual, (2, 3, 9, 9), {}, ["first.0", "wide.0"]),
        (Flat, (2, 3, 8, 8), {"conv": [0, 2, 3]}, []),
        (Tokens, (2, 5, 8), {"up": [0, 3, 4, 7]}, []),
        (Tokens, (2, 5, 8), {}, ["up"]),
    ],
    ids=["widths", "a stream and a block", "blocks", "a flattened size", "tokens", "a block of tokens"],
)
def test_it_answers_as_the_exported_pruned_network(make, shape, kept, blocks, tmp_path):
    model, x = make().eval(), torch.randn(shape)
    example = Batch((x,), {}, None)
    coupling = analyse(model, example)
    named = [block.name for first in blocks for block in coupling.blocks if block.has(first)]
    assert len(named) == len(blocks)
    plan = make_plan(coupling, kept, named)
    before = ir.load(export(model, example, tmp_path / "before.onnx").path)
    untouched = answers(before, x)
    found = prune_graph(before, plan)
    wanted = export(apply(model, plan), example, tmp_path / "after.onnx").path
    np.testing.assert_allclose(
        answers(found, x),
        ort.InferenceSession(wanted).run(None, {before.graph.inputs[0].name: x.numpy()})[0],
        atol=1e-5,
    )
    assert len(list(found.graph)) == len(list(ir.load(wanted).graph))
    sizes = [sum(np.prod(v.shape) for v in m.graph.initializers.values()) for m in (found, ir.load(wanted), before)]
    assert sizes[0] == sizes[1] < sizes[2]
    assert reshapes(found) == reshapes(ir.load(wanted))
    np.testing.assert_array_equal(answers(before, x), untouched)


def test_weights_that_the_graph_packs_are_refused(tmp_path):
    model, example = Recurrent().eval(), Batch((torch.randn(2, 6, 4),), {}, None)
    graph = ir.load(export(model, example, tmp_path / "m.onnx").path)
    gone = {"embed.weight": {0: (1,)}, "embed.bias": {0: (1,)}, "lstm.weight_ih_l0": {1: (1,)}}
    plan = replace(make_plan(analyse(model, example)), slices=gone)
    with pytest.raises(PruneError, match="packs its weights by gate"):
        prune_graph(graph, plan)


def test_a_plan_of_another_network_is_refused(tmp_path):
    graph = ir.load(export(Tokens().eval(), Batch((torch.randn(2, 5, 8),), {}, None), tmp_path / "m.onnx").path)
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    plan = make_plan(analyse(other, Batch((torch.randn(2, 3, 9, 9),), {}, None)), {"0": [0, 1]})
    with pytest.raises(PruneError, match="none of the plan's tensors"):
        prune_graph(graph, plan)
