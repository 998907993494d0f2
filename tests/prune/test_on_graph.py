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
from edgekit.prune import GraphPruner, analyse, apply, make_plan
from edgekit.workload import Batch
from tests.marks import seldom


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
    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.embed, self.rnn = nn.Linear(4, 8), kind(8, 8, batch_first=True, **options)
        self.head = nn.Linear(16 if self.rnn.bidirectional else 8, 2)

    def forward(self, x):
        return self.head(self.rnn(torch.relu(self.embed(x)))[0][:, -1])


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.LSTM(4, 8, batch_first=True), nn.LSTM(8, 8, batch_first=True)
        self.three, self.head = nn.GRU(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.two(self.one(x)[0])[0]
        return self.head(self.three(x.transpose(0, 1))[0][-1])


class Stated(nn.Module):
    """The states come in and go out: they are as wide as the user says."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 8, num_layers=2, batch_first=True), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[1][-1])


class Packed(nn.Module):
    """Queries, keys and values of all heads in one layer, cut apart as in timm."""

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(24), nn.Linear(24, 72), nn.Linear(24, 24)
        self.position = nn.Parameter(torch.randn(1, 5, 24))

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x + self.position)).reshape(n, t, 3, -1, 6).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1))


class Padded(Packed):
    """Heads that pass over padding, which is looked up by the number of each sample: nobody can infer that shape."""

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x + self.position)).reshape(n, t, 3, -1, 6).permute(2, 0, 3, 1, 4).unbind(0)
        seen = (x[..., 0] > -1)[torch.arange(n)[:, None, None, None], torch.arange(t)[None, None, None, :]]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.proj(y.transpose(1, 2).reshape(n, t, -1))


class Encoder(nn.Module):
    """PyTorch's own attention merges heads with samples, and its product has no parameter as it stands."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(24, 4, 40, batch_first=True)

    def forward(self, x):
        return self.layer(x)


class Shuffled(nn.Module):
    """Channels become pixels, and are mixed by an Einstein sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(4, 6, 3), nn.Linear(6, 5)
        self.mix = nn.Parameter(torch.randn(6, 6))

    def forward(self, x):
        x = torch.relu(self.conv(F.pixel_shuffle(self.stem(x), 2)))
        return self.head(torch.einsum("nchw,cd->nd", x, self.mix))


class Mixed(nn.Module):
    """Channels split, shuffled, joined, normalized by group, gathered, scaled up, padded and squeezed."""

    def __init__(self):
        super().__init__()
        self.stem, self.left = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.deep = nn.ConvTranspose2d(16, 16, 2, stride=2, groups=16)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.norm, self.slope = nn.GroupNorm(6, 12), nn.PReLU(12)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 6, 1), nn.ReLU(), nn.Conv2d(6, 12, 1))
        self.register_buffer("offset", torch.arange(12.0).view(12, 1, 1))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        a, b = torch.relu(self.stem(x)).chunk(2, 1)
        x = torch.cat([self.left(a), b], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = F.interpolate(F.pad(self.deep(x), (1, 1, 1, 1)), scale_factor=2.0)
        x = self.slope(self.norm(self.up(x)) + self.offset)
        x = x * torch.sigmoid(self.gate(x))
        return self.head(x.amax((2, 3)))


def answers(model, x):
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def reshapes(model):
    """Sizes and attributes as they are written: costs of pieces are known by them."""
    return [
        (node.inputs[1].const_value.numpy().tolist(), {name: each.value for name, each in node.attributes.items()})
        for node in model.graph
        if node.op_type == "Reshape" and node.inputs[1].const_value is not None
    ]


@pytest.mark.parametrize(
    ("make", "shape", "kept", "blocks"),
    [
        seldom(Residual, (2, 3, 9, 9), {"first.0": range(0, 24, 3), "wide.0": range(8), "head.0": range(5, 20)}, []),
        (Residual, (2, 3, 9, 9), {"stem.0": [1, 2, 3, 9], "wide.0": range(9)}, ["first.0"]),
        seldom(Residual, (2, 3, 9, 9), {}, ["first.0", "wide.0"]),
        seldom(Flat, (2, 3, 8, 8), {"conv": [0, 2, 3]}, []),
        (Tokens, (2, 5, 8), {"up": [0, 3, 4, 7]}, []),
        seldom(Tokens, (2, 5, 8), {}, ["up"]),
        seldom(Recurrent, (2, 6, 4), {"embed": [0, 2, 7], "rnn": [1, 2, 6]}, []),
        seldom(lambda: Recurrent(num_layers=3), (2, 6, 4), {"rnn": [0, 5]}, ["rnn.layer1"]),
        seldom(lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), (2, 6, 4), {"rnn": [3, 4, 5]}, []),
        seldom(lambda: Recurrent(bias=False), (2, 6, 4), {"rnn": [1, 7]}, []),
        (Stack, (2, 6, 4), {"one": [1, 4, 7]}, ["two"]),
        seldom(Stack, (2, 6, 4), {}, ["two"]),
        seldom(Stated, (2, 6, 4), {"rnn": [2, 3]}, []),
        seldom(Packed, (2, 5, 24), {"qkv": [0, 2, 3]}, []),
        (Padded, (2, 5, 24), {"qkv": [0, 2, 3]}, []),
        seldom(Shuffled, (2, 3, 4, 4), {"conv": [0, 2, 5]}, []),
        (Mixed, (2, 3, 4, 4), {"stem": [0, 1, 3, 6, 7], "up": [0, 1, 4, 5], "gate.1": [0, 3, 4]}, []),
    ],
    ids=[
        *("widths", "a stream and a block", "blocks", "a flattened size", "tokens", "a block of tokens", "units"),
        *("units and a layer", "units of both ways", "units without biases"),
        *("units and a module of a stack", "a module of a stack", "the last state"),
        *("heads", "heads behind a mask", "pixels of channels", "a mixture"),
    ],
)
def test_it_answers_as_the_exported_pruned_network(make, shape, kept, blocks, tmp_path):
    model, x = make().eval(), torch.randn(shape)
    example = Batch((x,), {}, None)
    coupling = analyse(model, example)
    named = [b.name for first in blocks for b in coupling.blocks if b.has(first) or b.name == first]
    assert len(named) == len(blocks)
    plan = make_plan(coupling, kept, named)
    before = ir.load(export(model, example, tmp_path / "before.onnx").path)
    untouched = answers(before, x)
    found = GraphPruner(before).pruned(plan)
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


def test_heads_of_pytorchs_own_attention(tmp_path):
    """The pruned attention has code of its own, which is exported with other nodes: answers and weights agree."""
    model, x = Encoder().eval(), torch.randn(2, 5, 24)
    example = Batch((x,), {}, None)
    plan = make_plan(analyse(model, example), {"layer.self_attn": [1, 2], "layer.linear1": range(7)})
    graph = ir.load(export(model, example, tmp_path / "m.onnx").path)
    wanted = ir.load(export(apply(model, plan), example, tmp_path / "p.onnx").path)
    found = GraphPruner(graph).pruned(plan)
    np.testing.assert_allclose(answers(found, x), answers(wanted, x), atol=1e-5)
    weights = [
        {name: np.prod(value.shape) for name, value in m.graph.initializers.items() if name.endswith("weight")}
        for m in (found, wanted)
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("make", "x", "slices", "match"),
    [
        (Packed, torch.randn(2, 5, 24), {"qkv.weight": {0: (1, 2)}}, "cuts across what stays"),
        (Tokens, torch.randn(2, 5, 8), {"up.weight": {0: (9,)}}, "index 9"),
        (Tokens, torch.randn(2, 5, 8), {"head.weight": {0: (0,)}, "head.bias": {0: (0,)}}, "another shape"),
        (Tokens, torch.randn(2, 5, 8), {"down.weight": {0: (0,)}, "down.bias": {0: (0,)}}, "where"),
    ],
    ids=["half a head", "no such index", "an output", "a shortcut that stays"],
)
def test_slices_that_do_not_fit_are_refused(make, x, slices, match, tmp_path):
    model, example = make().eval(), Batch((x,), {}, None)
    graph = ir.load(export(model, example, tmp_path / "m.onnx").path)
    plan = replace(make_plan(analyse(model, example)), slices=slices)
    with pytest.raises(PruneError, match=match):
        GraphPruner(graph).pruned(plan)


def test_a_layer_whose_state_is_read_is_refused(tmp_path):
    model, example = Stated().eval(), Batch((torch.randn(2, 6, 4),), {}, None)
    graph = ir.load(export(model, example, tmp_path / "m.onnx").path)
    with pytest.raises(PruneError, match="gives nothing but its sequence"):
        GraphPruner(graph).pruned(make_plan(analyse(model, example), {}, ["rnn.layer1"]))


def test_a_plan_of_another_network_is_refused(tmp_path):
    graph = ir.load(export(Tokens().eval(), Batch((torch.randn(2, 5, 8),), {}, None), tmp_path / "m.onnx").path)
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    plan = make_plan(analyse(other, Batch((torch.randn(2, 3, 9, 9),), {}, None)), {"0": [0, 1]})
    with pytest.raises(PruneError, match="none of the plan's tensors"):
        GraphPruner(graph).pruned(plan)
