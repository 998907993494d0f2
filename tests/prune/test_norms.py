"""Normalizations that lose channels, against statistics written out over those that are left."""

from __future__ import annotations

import json

import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit import prune as room
from edgekit.export import export

WIDTH, KEPT = 12, [0, 3, 4, 7, 8, 11]


class Root(nn.Module):
    """RMSNorm as transformers writes it for Llama, in fp32 in between."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, x):
        given = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x.to(given)


class First(nn.LayerNorm):
    """Over the channels of pictures [n, channels, h, w], as timm has it."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class Response(nn.Module):
    """Global response normalization of ConvNeXt V2 [n, h, w, channels]."""

    def __init__(self, width):
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, width)) for _ in range(2))

    def forward(self, x):
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class Named(nn.Module):
    """Has the shape that it normalizes over under torch's name."""

    def __init__(self, width):
        super().__init__()
        self.normalized_shape, self.weight = (width,), nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, self.normalized_shape, self.weight, 1e-6)


class Stream(nn.Module):
    """Tokens or pictures behind a normalization and around a branch."""

    def __init__(self, norm, *, pictures=False):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3) if pictures else nn.Linear(3, WIDTH)
        self.norm = norm
        self.up, self.down = (nn.Conv2d(WIDTH, WIDTH, 1) if pictures else nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(x.flatten(2).mean(-1) if x.ndim == 4 else x)


def layer_norm(x, weight, bias, dim):
    mean = x.mean(dim, keepdim=True)
    deviation = ((x - mean) ** 2).mean(dim, keepdim=True)
    shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
    return (x - mean) / (deviation + 1e-5) ** 0.5 * weight.view(shape) + bias.view(shape)


def root(x, weight):
    return x / ((x**2).mean(-1, keepdim=True) + 1e-6) ** 0.5 * weight


def group_norm(x, weight, bias):
    flat = x.flatten(1)
    return (x - flat.mean(1).view(-1, 1, 1, 1)) / (flat.var(1, unbiased=False).view(-1, 1, 1, 1) + 1e-5) ** 0.5 * (
        weight.view(1, -1, 1, 1)
    ) + bias.view(1, -1, 1, 1)


CASES = {
    "LayerNorm": (lambda: nn.LayerNorm(WIDTH), lambda m, x: layer_norm(x, m.weight[KEPT], m.bias[KEPT], -1)),
    "RMSNorm": (lambda: nn.RMSNorm(WIDTH, eps=1e-6), lambda m, x: root(x, m.weight[KEPT])),
    "written out": (lambda: Root(WIDTH), lambda m, x: root(x, m.weight[KEPT])),
    "of another library": (lambda: Named(WIDTH), lambda m, x: root(x, m.weight[KEPT])),
    "of pictures": (lambda: First(WIDTH), lambda m, x: layer_norm(x, m.weight[KEPT], m.bias[KEPT], 1)),
    "one group": (lambda: nn.GroupNorm(1, WIDTH), lambda m, x: group_norm(x, m.weight[KEPT], m.bias[KEPT])),
}


@pytest.mark.parametrize("case", CASES)
def test_statistics_are_those_of_the_channels_that_are_left(kit, tmp_path, case):
    make, formula = CASES[case]
    pictures = case in {"of pictures", "one group"}
    net = kit.settle(Stream(make(), pictures=pictures))
    example = kit.batch(3, 6, 6) if pictures else kit.batch(5, 3)
    coupling = room.analyse(net, example)
    assert {group.name: len(group) for group in coupling.groups} == {"stem": WIDTH, "up": WIDTH}
    plan = room.make_plan(coupling, {"stem": KEPT})
    assert plan.norms == {"norm": 1 if pictures else 2}
    assert room.PrunePlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    pruned = room.prune(net, example, plan).model
    x = torch.randn(3, *example.args[0].shape[1:])
    with torch.no_grad():
        operator = F.conv2d if pictures else F.linear
        y = operator(x, net.stem.weight[KEPT], net.stem.bias[KEPT])
        inner = F.gelu(operator(formula(net.norm, y), net.up.weight[:, KEPT], net.up.bias))
        y = y + operator(inner, net.down.weight[KEPT], net.down.bias[KEPT])
        want = F.linear(y.flatten(2).mean(-1) if pictures else y, net.head.weight[:, KEPT], net.head.bias)
        torch.testing.assert_close(pruned(x), want)
    # The graph of the unpruned network, narrowed by the plan, is that of the pruned one.
    source = ir.load(export(net, example, tmp_path / "net.onnx", dynamic="batch").path)
    ir.external_data.load_to_model(source)
    narrowed = ir.to_proto(room.GraphPruner(source).pruned(plan)).SerializeToString()
    (given,) = ort.InferenceSession(narrowed).run(None, {source.graph.inputs[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(given), want, rtol=1e-4, atol=1e-5)


def test_a_norm_over_the_channels_of_a_branch(kit):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(3, WIDTH), Response(WIDTH), nn.Linear(WIDTH, 2)

        def forward(self, x):
            return self.b(self.norm(F.gelu(self.a(x)))).mean((1, 2))

    net = kit.settle(Net())
    coupling = room.analyse(net, kit.batch(5, 5, 3))
    pruned = room.prune(net, kit.batch(5, 5, 3), room.make_plan(coupling, {"a": KEPT})).model
    x = torch.randn(2, 4, 4, 3)
    with torch.no_grad():
        y = F.gelu(net.a(x))[..., KEPT]
        norm = (y**2).sum((1, 2), keepdim=True) ** 0.5
        y = (
            y
            + net.norm.gamma[..., KEPT] * y * norm / (norm.sum(-1, keepdim=True) / 6 + 1e-6)
            + net.norm.beta[..., KEPT]
        )
        torch.testing.assert_close(pruned(x), (y @ net.b.weight[:, KEPT].T + net.b.bias).mean((1, 2)))


class Bare(nn.Module):
    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:])


class More(nn.Module):
    """Does more than to normalize: one channel's fate is not the others' affair alone."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.sigmoid(torch.cumsum(x.mean(-1, keepdim=True), 1)) * self.weight


@pytest.mark.parametrize(("norm", "reason"), [(Bare, "normalizes over it"), (lambda: More(WIDTH), "reduces over it")])
def test_what_is_no_module_of_scales_alone_freezes_as_before(kit, norm, reason):
    coupling = room.analyse(kit.settle(Stream(norm())), kit.batch(5, 3))
    assert [group.name for group in coupling.groups] == ["up"]
    assert any(reason in why for _, why in coupling.frozen)


def test_a_norm_that_is_called_twice_and_one_beside_blocks_that_go(kit):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm = nn.Linear(3, WIDTH), nn.LayerNorm(WIDTH)
            self.one, self.two = (nn.Sequential(nn.Linear(WIDTH, 8), nn.ReLU(), nn.Linear(8, WIDTH)) for _ in range(2))
            self.head = nn.Linear(WIDTH, 2)

        def forward(self, x):
            x = self.stem(x)
            x = x + self.one(self.norm(x))
            return self.head(x + self.two(self.norm(x)))

    net = kit.settle(Net())
    coupling = room.analyse(net, kit.batch(5, 3))
    assert coupling.norms == {"norm": 2}
    pruned = room.prune(net, kit.batch(5, 3), room.make_plan(coupling, {"stem": KEPT}, blocks=["one"])).model
    x = torch.randn(2, 7, 3)
    with torch.no_grad():
        y = F.linear(x, net.stem.weight[KEPT], net.stem.bias[KEPT])
        z = layer_norm(y, net.norm.weight[KEPT], net.norm.bias[KEPT], -1)
        first, _, last = net.two
        y = y + F.linear(F.relu(F.linear(z, first.weight[:, KEPT], first.bias)), last.weight[KEPT], last.bias[KEPT])
        torch.testing.assert_close(pruned(x), F.linear(y, net.head.weight[:, KEPT], net.head.bias))


def test_a_plan_of_before_knows_no_norms(kit):
    net = kit.settle(Stream(nn.LayerNorm(WIDTH)))
    coupling = room.analyse(net, kit.batch(5, 3))
    plan = room.make_plan(coupling, {"up": KEPT})
    data = plan.to_dict()
    assert data.pop("norms") == {}
    assert room.PrunePlan.from_dict({**data, "version": 2}) == plan


def test_a_transformer_of_torch_gets_narrower(kit):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
    stem, head = nn.Linear(3, 16), nn.Linear(16, 2)
    net = kit.settle(nn.Sequential(stem, nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), head))
    coupling = room.analyse(net, kit.batch(5, 3))
    assert [len(group) for group in coupling.groups] == [16, 4, 32, 4, 32]
    outcome = room.prune(net, kit.batch(5, 3), room.make_plan(coupling, {"0": range(8)}))
    assert outcome.model[1].layers[1].norm1.normalized_shape == (8,)
    assert outcome.model(torch.randn(1, 9, 3)).shape == (1, 9, 2)
