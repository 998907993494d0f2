"""Depth beside convolutions: sublayers of Transformers that go, against their formulas."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit import prune as room
from edgekit.workload import Batch

ATTENTION, HIDDEN = "layers.0.self_attn", "layers.0.linear2"


def encoder(*, norm_first, batch_first=True, layers=1):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first, norm_first=norm_first)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=not norm_first and batch_first)


def layer_by_hand(layer, x, gone):
    """One encoder layer without the sublayers in `gone`."""

    def attend(x):
        return 0 if ATTENTION in gone else layer.self_attn(x, x, x)[0]

    def hidden(x):
        return 0 if HIDDEN in gone else layer.linear2(F.relu(layer.linear1(x)))

    if layer.norm_first:
        x = x + attend(layer.norm1(x))
        return x + hidden(layer.norm2(x))
    x = layer.norm1(x + attend(x))
    return layer.norm2(x + hidden(x))


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("gone", [[ATTENTION], [HIDDEN], [ATTENTION, HIDDEN]])
def test_sublayers_of_an_encoder_layer(kit, norm_first, batch_first, gone):
    net = kit.settle(encoder(norm_first=norm_first, batch_first=batch_first))
    coupling = room.analyse(net, kit.batch(7, 16, n=4))
    assert {block.name for block in coupling.blocks} == {ATTENTION, HIDDEN}
    plan = room.make_plan(coupling, blocks=gone)
    assert room.PrunePlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    pruned = room.prune(net, kit.batch(7, 16, n=4), plan).model
    # Other numbers of samples and tokens than those it was analysed with.
    for x in (torch.randn(3, 9, 16), torch.randn(1, 2, 16)):
        with torch.no_grad():
            torch.testing.assert_close(pruned(x), layer_by_hand(net.layers[0], x, gone), atol=1e-5, rtol=1e-4)
    left = {name.rpartition(".")[0] for name, _ in pruned.named_parameters()}
    norms = {ATTENTION: "layers.0.norm1", HIDDEN: "layers.0.norm2"}
    assert {norm for norm in norms.values() if norm in left} == {
        norm for sublayer, norm in norms.items() if sublayer not in gone or not norm_first
    }
    assert (HIDDEN in left) == (HIDDEN not in gone)


@pytest.mark.parametrize("name", [ATTENTION, HIDDEN])
def test_a_mask_of_padding_still_works(kit, name):
    net = kit.settle(encoder(norm_first=False, layers=2))
    mask = torch.tensor([[False] * 4 + [True], [False] * 5])
    example = Batch((torch.randn(2, 5, 16),), {"src_key_padding_mask": mask}, None)
    coupling = room.analyse(net, example)
    pruned = room.prune(net, example, room.make_plan(coupling, blocks=[name])).model
    layer, x = net.layers[0], example.args[0]
    with torch.no_grad():
        if name == ATTENTION:
            y = layer.norm1(x)
            y = layer.norm2(y + layer.linear2(F.relu(layer.linear1(y))))
        else:
            y = layer.norm2(layer.norm1(x + layer.self_attn(x, x, x, key_padding_mask=mask)[0]))
        last = net.layers[1]
        z = last.norm1(y + last.self_attn(y, y, y, key_padding_mask=mask)[0])
        z = last.norm2(z + last.linear2(F.relu(last.linear1(z))))
        torch.testing.assert_close(pruned(x, src_key_padding_mask=mask)[~mask], z[~mask], atol=1e-5, rtol=1e-4)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True)
        self.memory, self.decoder = nn.Linear(16, 16), nn.TransformerDecoder(layer, 2)

    def forward(self, x, memory):
        return self.decoder(x, self.memory(memory))


def test_cross_attention_goes_and_what_it_read_stays(kit):
    net = kit.settle(Decoder())
    example = Batch((torch.randn(2, 5, 16), torch.randn(2, 6, 16)), {}, None)
    coupling = room.analyse(net, example)
    parts = ("self_attn", "multihead_attn", "linear2")
    assert [b.name for b in coupling.blocks] == [f"decoder.layers.{i}.{part}" for i in (0, 1) for part in parts]
    plan = room.make_plan(coupling, blocks=["decoder.layers.0.multihead_attn", "decoder.layers.1.self_attn"])
    pruned = room.prune(net, example, plan).model
    x, memory = torch.randn(3, 4, 16), torch.randn(3, 8, 16)
    first, second = net.decoder.layers
    with torch.no_grad():
        m = net.memory(memory)
        y = first.norm2(first.norm1(x + first.self_attn(x, x, x)[0]))
        y = first.norm3(y + first.linear2(F.relu(first.linear1(y))))
        y = second.norm1(y)
        y = second.norm2(y + second.multihead_attn(y, m, m)[0])
        y = second.norm3(y + second.linear2(F.relu(second.linear1(y))))
        torch.testing.assert_close(pruned(x, memory), y, atol=1e-5, rtol=1e-4)


class Attention(nn.Module):
    """In the manner of Hugging Face: named arguments, and the weights as a second output."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, hidden_states):
        n, tokens, width = hidden_states.shape
        q, k, v = (
            part(hidden_states).view(n, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        weights = torch.softmax(q @ k.transpose(2, 3) * (width // self.heads) ** -0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, tokens, width)), weights


class Layer(nn.Module):
    def __init__(self, width=16, heads=4):
        super().__init__()
        self.norm, self.attention, self.scale = (
            nn.LayerNorm(width),
            Attention(width, heads),
            nn.Parameter(torch.ones(1)),
        )
        self.gate, self.up, self.down = (nn.Linear(*s, bias=False) for s in ((width, 24), (width, 24), (24, width)))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = x + self.scale * self.drop(self.attention(hidden_states=self.norm(x))[0])
        return x + self.down(F.silu(self.gate(x)) * self.up(x))


def test_an_attention_that_returns_its_weights_and_a_gated_mlp(kit):
    net = kit.settle(nn.Sequential(nn.Linear(3, 16), Layer(), nn.Linear(16, 2)))
    coupling = room.analyse(net, kit.batch(5, 3))
    assert [block.name for block in coupling.blocks] == ["1.attention", "1.down"]
    assert (block := coupling.block("1.attention")).modules == ("1.norm",)
    assert (block.further, block.leading, block.shape) == (1, 2, (16,))
    # Both projections of the gated MLP lose the same units.
    assert {
        len(g) for g in coupling.groups if ("1.gate.weight", 0) in g.tensors and ("1.up.weight", 0) in g.tensors
    } == {24}
    pruned = room.prune(net, kit.batch(5, 3), room.make_plan(coupling, blocks=["1.attention"])).model
    x, layer = torch.randn(2, 7, 3), net[1]
    with torch.no_grad():
        y = net[0](x)
        want = net[2](y + layer.down(F.silu(layer.gate(y)) * layer.up(y)))
    torch.testing.assert_close(pruned(x), want)
    both = room.prune(net, kit.batch(5, 3), room.make_plan(coupling, blocks=["1.attention", "1.down"])).model
    torch.testing.assert_close(both(x), net[2](net[0](x)))


def test_groups_inside_a_whole_module_are_inside_its_block(kit):
    net = kit.settle(encoder(norm_first=True))
    coupling = room.analyse(net, kit.batch(7, 16))
    assert room.inside(coupling)["layers.0.linear1"] == f"block {HIDDEN}"


def test_a_block_of_a_plan_from_before_there_were_whole_modules():
    old = {"name": "b", "last": "b.conv", "modules": ["b.a"], "shape": [4, 2, 2]}
    data = {"version": 1, "fingerprint": "", "narrowings": [], "slices": {}, "blocks": [old]}
    (block,) = room.PrunePlan.from_dict(data).blocks
    assert (block.ending, block.leading, block.further) == ("b.conv", 1, 0)
