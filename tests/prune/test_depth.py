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


class Recurrent(nn.Module):
    """Recurrent layers around which a shortcut leads."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.one, self.two = nn.LSTM(8, 8, batch_first=True), nn.GRU(8, 4, batch_first=True, bidirectional=True)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.one(x)[0]
        return self.head(x + self.two(x)[0])


@pytest.mark.parametrize("gone", ["one", "two"])
def test_a_recurrent_branch_goes_and_its_stream_narrows(kit, gone):
    net = kit.settle(Recurrent())
    coupling = room.analyse(net, kit.batch(6, 5))
    assert [block.name for block in coupling.blocks] == ["one", "two"]
    # Unit i of each direction of the second is channels i and 4 + i of the stream.
    assert [len(group) for group in coupling.groups] == [4]
    kept = [0, 2, 3]
    pruned = room.prune(net, kit.batch(6, 5), room.make_plan(coupling, {"stem": kept}, [gone])).model
    stream = [*kept, *(4 + unit for unit in kept)]
    x = torch.randn(3, 4, 5)
    with torch.no_grad():
        y = F.linear(x, net.stem.weight[stream], net.stem.bias[stream])
        for name, gates, units in (("one", 4, stream), ("two", 3, kept)):
            layer = getattr(net, name)
            small = type(layer)(6, len(units), batch_first=True, bidirectional=layer.bidirectional)
            rows = [gate * layer.hidden_size + unit for gate in range(gates) for unit in units]
            for weight, value in small.named_parameters():
                columns = {"weight_ih": stream, "weight_hh": units}.get(weight[:9])
                own = getattr(layer, weight)[rows]
                value.copy_(own if columns is None else own[:, columns])
            y = y if name == gone else y + small(y)[0]
        want = F.linear(y, net.head.weight[:, stream], net.head.bias)
    torch.testing.assert_close(pruned(x), want)


class Inline(nn.Module):
    """A decoder block in one forward: rotated queries and keys with norms of their own, causal, gated MLP."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.norm, self.norms = nn.Linear(3, 16), nn.Linear(16, 4), nn.RMSNorm(16), nn.RMSNorm(4)
        self.qkv, self.out = nn.Linear(16, 48, bias=False), nn.Linear(16, 16, bias=False)
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)

    def rotated(self, x):
        angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] / torch.tensor([1.0, 100.0] * 2, dtype=x.dtype)
        first, second = x.chunk(2, -1)
        return x * angle.cos() + torch.cat((-second, first), -1) * angle.sin()

    def attend(self, y, heads=slice(None)):
        n, t, _ = y.shape
        q, k, v = self.qkv(y).view(n, t, 3, -1, 4)[:, :, :, heads].permute(2, 0, 3, 1, 4)
        q, k = self.rotated(self.norms(q)), self.rotated(self.norms(k))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)

    def mlp(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.out(self.attend(self.norm(x)).flatten(2))
        return self.head(x + self.mlp(x))


def test_a_decoder_block_in_one_forward(kit):
    net = kit.settle(Inline())
    coupling = room.analyse(net, kit.batch(6, 3))
    assert {group.name: len(group) for group in coupling.groups} == {"stem": 16, "qkv": 4, "gate": 24}
    assert [block.name for block in coupling.blocks] == ["out", "down"]
    x = torch.randn(2, 7, 3)
    with torch.no_grad():
        stem = net.stem(x)
        mixed = net.attend(net.norm(stem), [0, 2])
        weight = net.out.weight.view(16, 4, 4)[:, [0, 2]]
        y = stem + torch.einsum("nthd,whd->ntw", mixed, weight)
        pruned = room.prune(net, kit.batch(6, 3), room.make_plan(coupling, {"qkv": [0, 2]})).model
        torch.testing.assert_close(pruned(x), net.head(y + net.mlp(y)))
        # Nothing can stand in for what makes queries, keys and values at once: it stays, and is read by nobody.
        assert coupling.block("out").modules == ()
        pruned = room.prune(net, kit.batch(6, 3), room.make_plan(coupling, blocks=["out"])).model
        torch.testing.assert_close(pruned(x), net.head(stem + net.mlp(stem)))


def test_an_encoder_that_one_branch_alone_reads_goes_with_it(kit):
    net = kit.settle(Encoded())
    example = Batch((torch.randn(2, 5, 16), torch.randn(2, 6, 16)), {}, None)
    coupling = room.analyse(net, example)
    pruned = room.prune(net, example, room.make_plan(coupling, blocks=["decoder.multihead_attn"])).model
    assert not any(name.startswith("encoder") for name, _ in pruned.named_parameters())
    (memory, x), d = (torch.randn(1, 4, 16), torch.randn(1, 3, 16)), net.decoder
    with torch.no_grad():
        y = d.norm2(d.norm1(x + d.self_attn(x, x, x)[0]))
        want = d.norm3(y + d.linear2(F.relu(d.linear1(y))))
        torch.testing.assert_close(pruned(memory, x), want, atol=1e-5, rtol=1e-4)


class Encoded(nn.Module):
    def __init__(self):
        super().__init__()
        options = {"d_model": 16, "nhead": 4, "dim_feedforward": 8, "batch_first": True}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**options), 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoderLayer(**options)

    def forward(self, memory, x):
        return self.decoder(x, self.encoder(memory, mask=None))
