"""Attention heads that go, against attention written out with einsum; and the numbers that modules keep of them."""

from __future__ import annotations

import json
import sys
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit import prune as room
from edgekit.errors import PruneError
from edgekit.workload import Batch, digest_of

WIDTH, HEADS, DIM = 20, 4, 5


def attend(x, memory, weights, heads, mask=None):
    """[n, tokens, width]: softmax(q kᵀ / √d) v for each of `heads`, and their sum through the last projection."""
    (wq, bq), (wk, bk), (wv, bv), (wo, bo) = weights

    def by_head(x, w, b):
        return torch.einsum("ntw,hdw->nhtd", x, w.view(HEADS, DIM, -1)) + b.view(HEADS, 1, DIM)

    scores = torch.einsum("nhqd,nhkd->nhqk", by_head(x, wq, bq), by_head(memory, wk, bk)) / DIM**0.5
    shares = torch.softmax(scores if mask is None else scores + mask, -1)
    mixed = torch.einsum("nhqk,nhkd->nhqd", shares, by_head(memory, wv, bv))[:, heads]
    return torch.einsum("nhqd,whd->nqw", mixed, wo.view(-1, HEADS, DIM)[:, heads]) + bo


class Packed(nn.Module):
    """One linear layer makes queries, keys and values; as timm has it."""

    def __init__(self, form):
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim, self.form = HEADS, DIM, WIDTH, form
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        n, t, _ = x.shape
        if self.form == "split":
            q, k, v = (y.view(n, t, self.num_heads, -1).transpose(1, 2) for y in self.qkv(x).split(self.attn_dim, -1))
            x = F.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5)
        else:
            q, k, v = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
            x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(n, t, self.attn_dim))

    def weights(self):
        parts = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True)
        return [*parts, (self.proj.weight, self.proj.bias)]


class Apart(nn.Module):
    """Three linear layers, in several manners of writing."""

    def __init__(self, form):
        super().__init__()
        self.num_heads, self.head_dim, self.form = HEADS, DIM, form
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = (part(x) for part in (self.q, self.k, self.v))
        if self.form == "computed":
            q, k, v = (y.view(n, t, -1, self.head_dim).transpose(1, 2) for y in (q, k, v))
            shares = torch.softmax(q @ k.mT * self.head_dim**-0.5, -1)
            return self.out((shares @ v).transpose(1, 2).flatten(2))
        if self.form == "einsum":
            q, k, v = (y.view(n, t, self.num_heads, self.head_dim) for y in (q, k, v))
            shares = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", q, k) / self.head_dim**0.5, -1)
            return self.out(torch.einsum("bhqk,bkhd->bqhd", shares, v).reshape(n, t, -1))
        # Heads merged with the samples, as in fairseq.
        q, k, v = (
            y.view(n, t, self.num_heads, self.head_dim).transpose(1, 2).reshape(n * self.num_heads, t, self.head_dim)
            for y in (q, k, v)
        )
        shares = torch.softmax(torch.bmm(q, k.transpose(1, 2)) / self.head_dim**0.5, -1)
        out = torch.bmm(shares, v).view(n, self.num_heads, t, self.head_dim).transpose(1, 2)
        return self.out(out.reshape(n, t, self.num_heads * self.head_dim))

    def weights(self):
        return [(part.weight, part.bias) for part in (self.q, self.k, self.v, self.out)]


class Layer(nn.Module):
    """Pre-norm attention beside a stream."""

    def __init__(self, attention):
        super().__init__()
        self.stem, self.norm, self.attention = nn.Linear(3, WIDTH), nn.LayerNorm(WIDTH), attention
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.attention(self.norm(x)))


@pytest.mark.parametrize(
    ("kind", "form"),
    [(Packed, "reshape"), (Packed, "split"), (Apart, "computed"), (Apart, "einsum"), (Apart, "merged")],
)
def test_heads_go_whole(kit, kind, form):
    net = kit.settle(Layer(kind(form)))
    before = digest_of(net)
    coupling = room.analyse(net, kit.batch(6, 3))
    stream, group = coupling.groups
    assert (len(stream), len(group)) == (WIDTH, HEADS)
    assert [block.name for block in coupling.blocks] == ["attention"]
    plan = room.make_plan(coupling, {group.name: [0, 3]})
    assert room.PrunePlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    pruned = room.prune(net, kit.batch(6, 3), plan).model
    assert digest_of(net) == before
    assert net.attention.num_heads == HEADS
    # Other numbers of samples and tokens than those it was analysed with.
    x = torch.randn(3, 7, 3)
    with torch.no_grad():
        y = net.stem(x)
        z = net.norm(y)
        want = net.head(y + attend(z, z, net.attention.weights(), [0, 3]))
        torch.testing.assert_close(pruned(x), want, rtol=1e-4, atol=1e-5)
    assert (pruned.attention.num_heads, pruned.attention.head_dim) == (2, DIM)
    last = pruned.attention.proj if kind is Packed else pruned.attention.out
    assert (last.in_features, last.out_features) == (2 * DIM, WIDTH)


def test_heads_replay_lift_and_print(kit, tmp_path):
    def fresh():
        return kit.settle(Layer(Packed("reshape")))

    net = fresh()
    coupling = room.analyse(net, kit.batch(6, 3))
    ranks = room.importance(net, coupling, method="l2")
    texts = [action.text for action in room.actions(coupling, ranks, grid=5)]
    assert texts == [
        "remove block attention",
        *(f"stem: 20 -> {width}" for width in (15, 10, 5)),
        *(f"attention.qkv: 4 -> {heads}" for heads in (3, 2, 1)),
    ]
    assert room.inside(coupling) == {"attention.qkv": "block attention"}
    plan = room.plan(coupling, ranks, keep={"attention.qkv": 2}, grid=5)
    assert plan.counts == {"attention": {"num_heads": 2, "attn_dim": 10}}
    pruned = room.prune(net, kit.batch(6, 3), plan).model
    with torch.no_grad():
        for value in pruned.parameters():
            value.add_(torch.randn_like(value))
    room.save(tmp_path, plan, pruned)
    again = room.replay(fresh, tmp_path)
    x = torch.randn(2, 4, 3)
    torch.testing.assert_close(again(x), pruned(x), rtol=0, atol=0)
    assert digest_of(room.apply(room.lift(net, pruned, plan), plan)) == digest_of(pruned)
    data = plan.to_dict()
    for counts in ({"attention": {"nothing": 2}}, {"nobody": {"num_heads": 2}}, {"attention": {"form": 2}}):
        with pytest.raises(PruneError, match=r"the plan removes channels that '.*' counts as '.*'"):
            room.apply(net, room.PrunePlan.from_dict({**data, "counts": counts}))


class Divided(Packed):
    """It takes the size of its heads from the width of what comes in."""

    def forward(self, x):
        n, t, width = x.shape
        parts = self.qkv(x).reshape(n, t, 3, self.num_heads, width // self.num_heads)
        x = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4).unbind(0))
        return self.proj(x.transpose(1, 2).reshape(n, t, width))


def test_code_that_divides_the_width_freezes_its_heads(kit):
    coupling = room.analyse(kit.settle(Layer(Divided("reshape"))), kit.batch(6, 3))
    assert coupling.groups == ()
    assert "the pruned model does not run: RuntimeError: shape" in dict(coupling.frozen)["attention.qkv"]
    assert [block.name for block in coupling.blocks] == ["attention"]


def test_what_no_count_helps_is_guessed_once_for_all_blocks_that_are_alike(kit, monkeypatch):
    verbs, probed = sys.modules["edgekit.prune.prune"], Counter()

    def fault(self, groups, blocks, plain=verbs._Probe.fault):
        probed.update([groups[0].name] if len(groups) == 1 else [])
        return plain(self, groups, blocks)

    monkeypatch.setattr(verbs._Probe, "fault", fault)
    layers = [nn.Sequential(nn.LayerNorm(WIDTH), Divided("reshape")) for _ in range(4)]
    coupling = room.analyse(kit.settle(nn.Sequential(*layers)), kit.batch(6, WIDTH))
    assert {f"{index}.1.qkv" for index in range(4)} <= set(dict(coupling.frozen))
    assert probed["0.1.qkv"] > 3
    assert max(probed[f"{index}.1.qkv"] for index in range(1, 4)) <= 2


class TwoOfOneNumber(nn.Module):
    """Two attentions whose heads one number counts: neither may change alone."""

    def __init__(self):
        super().__init__()
        self.heads, self.stem, self.head = HEADS, nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(8))

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        for first in (0, 4):
            q, k, v = (
                part(x).unflatten(-1, (self.heads, DIM)).transpose(1, 2) for part in self.parts[first : first + 3]
            )
            x = torch.tanh(self.parts[first + 3](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return self.head(x)


def test_a_number_that_counts_two_groups_freezes_both(kit):
    coupling = room.analyse(kit.settle(TwoOfOneNumber()), kit.batch(6, 3))
    assert sorted(len(group) for group in coupling.groups) == [WIDTH] * 3
    assert {"parts.0", "parts.4"} <= dict(coupling.frozen).keys()


class Shared(nn.Module):
    """Each head of keys and values serves several heads of queries, under a causal mask."""

    def __init__(self, form, kv=2, rep=3):
        super().__init__()
        self.form, self.n_heads, self.n_kv, self.rep = form, kv * rep, kv, rep
        self.q, self.k, self.v = (nn.Linear(WIDTH, heads * DIM, bias=False) for heads in (kv * rep, kv, kv))
        self.o = nn.Linear(kv * rep * DIM, WIDTH, bias=False)
        self.register_buffer("mask", torch.ones(16, 16).tril())

    def forward(self, x):
        n, t, _ = x.shape
        q = self.q(x).view(n, t, self.n_heads, DIM).transpose(1, 2)
        k, v = (part(x).view(n, t, self.n_kv, DIM).transpose(1, 2) for part in (self.k, self.v))
        if self.form == "gqa":
            x = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            return self.o(x.transpose(1, 2).flatten(2))
        if self.form == "expand":
            k, v = (
                y[:, :, None].expand(n, self.n_kv, self.rep, t, DIM).reshape(n, self.n_kv * self.rep, t, DIM)
                for y in (k, v)
            )
        else:
            k, v = (y.repeat_interleave(self.rep, 1) for y in (k, v))
        scores = (q @ k.transpose(2, 3) / DIM**0.5).masked_fill(self.mask[:t, :t] == 0, -1e9)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("form", ["gqa", "expand", "repeat"])
def test_shared_keys_and_values_take_their_queries_along(kit, form):
    net = kit.settle(Layer(Shared(form)))
    net.attention.mask.copy_(torch.ones(16, 16).tril())
    coupling = room.analyse(net, kit.batch(6, 3))
    _, group = coupling.groups
    assert (len(group), {name: len(indexes) for (name, _), indexes in group.channels[0].items()}) == (
        2,
        {f"attention.{part}.weight": heads * DIM for part, heads in (("q", 3), ("k", 1), ("v", 1), ("o", 3))},
    )
    pruned = room.prune(net, kit.batch(6, 3), room.make_plan(coupling, {group.name: [1]})).model
    assert (pruned.attention.n_heads, pruned.attention.n_kv, pruned.attention.rep) == (3, 1, 3)
    x, a = torch.randn(2, 5, 3), net.attention
    with torch.no_grad():
        y = net.stem(x)
        z = net.norm(y)
        q = torch.einsum("ntw,hdw->nhtd", z, a.q.weight.view(6, DIM, WIDTH)[3:])
        k, v = (torch.einsum("ntw,dw->ntd", z, part.weight[DIM:]) for part in (a.k, a.v))
        scores = torch.einsum("nhqd,nkd->nhqk", q, k) / DIM**0.5 + torch.full((5, 5), float("-inf")).triu(1)
        mixed = torch.einsum("nhqk,nkd->nhqd", scores.softmax(-1), v)
        want = net.head(y + torch.einsum("nhqd,whd->nqw", mixed, a.o.weight.view(WIDTH, 6, DIM)[:, 3:]))
        torch.testing.assert_close(pruned(x), want, rtol=1e-4, atol=1e-5)


class Stock(nn.Module):
    """PyTorch's own attention, on itself or on a memory of another width."""

    def __init__(self, *, batch_first, kdim=None, bias=True):
        super().__init__()
        self.attention = nn.MultiheadAttention(
            WIDTH, HEADS, batch_first=batch_first, kdim=kdim, vdim=kdim, bias=bias, dropout=0.1
        )
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x, memory=None, mask=None, padding=None):
        memory = x if memory is None else memory
        return self.head(self.attention(x, memory, memory, attn_mask=mask, key_padding_mask=padding)[0])


def stock_weights(attention):
    packed = attention.in_proj_weight
    separate = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    biases = [torch.zeros(WIDTH)] * 4
    if attention.in_proj_bias is not None:
        biases = [*attention.in_proj_bias.chunk(3), attention.out_proj.bias]
    matrices = [*(separate if packed is None else packed.chunk(3)), attention.out_proj.weight]
    return list(zip(matrices, biases, strict=True))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("cross", "kdim", "bias"), [(False, None, True), (True, None, False), (True, 7, True)])
def test_heads_of_pytorchs_own_attention(kit, batch_first, cross, kdim, bias):
    net = kit.settle(Stock(batch_first=batch_first, kdim=kdim, bias=bias))
    generator = torch.Generator().manual_seed(3)
    x, memory = (torch.randn(2, t, w, generator=generator) for t, w in ((5, WIDTH), (6, kdim or WIDTH)))
    memory = memory if cross else x
    mask = torch.ones(5, memory.shape[1]).triu(2) * -3
    padding = torch.zeros(2, memory.shape[1])
    padding[0, -2:] = float("-inf")
    turned = [y if batch_first else y.transpose(0, 1) for y in (x, memory)]
    example = Batch((turned[0], turned[1] if cross else None, mask, padding), {}, None)
    coupling = room.analyse(net, example)
    assert len(coupling.group("attention")) == HEADS
    pruned = room.prune(net, example, room.make_plan(coupling, {"attention": [1, 2]})).model
    attention = pruned.attention
    assert isinstance(attention, nn.MultiheadAttention)
    assert (attention.num_heads, attention.head_dim, attention.embed_dim) == (2, DIM, WIDTH)
    with torch.no_grad():
        blocked = mask + padding[:, None, None]
        want = net.head(attend(x, memory, stock_weights(net.attention), [1, 2], blocked))
        have = example.call(pruned)
        torch.testing.assert_close(have if batch_first else have.transpose(0, 1), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_heads_of_pytorchs_encoder_layers(kit, norm_first):
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, batch_first=True, norm_first=norm_first)
    net = kit.settle(nn.Sequential(nn.Linear(6, WIDTH), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)))
    coupling = room.analyse(net, kit.batch(5, 6))
    names = {f"1.layers.{i}.{part}": size for i in (0, 1) for part, size in (("self_attn", HEADS), ("linear1", 24))}
    assert {group.name: len(group) for group in coupling.groups} == names
    kept = {"1.layers.0.self_attn": [2], "1.layers.1.self_attn": [0, 1, 3], "1.layers.1.linear1": range(8)}
    plan = room.make_plan(coupling, kept, ["1.layers.0.linear2"])
    pruned = room.prune(net, kit.batch(5, 6), plan).model
    x = torch.randn(3, 4, 6)
    with torch.no_grad():
        y = net[0](x)
        for layer, heads, hidden in zip(net[1].layers, ([2], [0, 1, 3]), (0, 8), strict=True):
            weights = stock_weights(layer.self_attn)

            def mlp(z, layer=layer, hidden=hidden):
                if not hidden:
                    return 0
                wide = F.relu(F.linear(z, layer.linear1.weight[:hidden], layer.linear1.bias[:hidden]))
                return F.linear(wide, layer.linear2.weight[:, :hidden], layer.linear2.bias)

            if norm_first:
                z = layer.norm1(y)
                y = y + attend(z, z, weights, heads)
                y = y + mlp(layer.norm2(y))
            else:
                y = layer.norm1(y + attend(y, y, weights, heads))
                y = layer.norm2(y + mlp(y))
        torch.testing.assert_close(pruned(x), y, rtol=1e-4, atol=1e-5)
    pruned.train()(x).sum().backward()
    assert all(value.grad is not None for value in pruned.parameters())


def test_an_attention_without_samples(kit):
    net = kit.settle(Stock(batch_first=True))
    coupling = room.analyse(net, Batch((torch.randn(2, 5, WIDTH),), {}, None))
    pruned = room.prune(
        net, Batch((torch.randn(2, 5, WIDTH),), {}, None), room.make_plan(coupling, {"attention": [0, 2]})
    ).model
    x, padding = torch.randn(5, WIDTH), torch.tensor([False, False, True, False, False])
    one, shares = pruned.attention(x, x, x, key_padding_mask=padding, average_attn_weights=False)
    many, all_shares = pruned.attention(*[x[None]] * 3, key_padding_mask=padding[None], average_attn_weights=False)
    torch.testing.assert_close(one, many[0])
    torch.testing.assert_close(shares, all_shares[0])
    assert shares.shape == (2, 5, 5)
    assert not shares[..., 2].any()
    with pytest.raises(ValueError, match="a mask of 3 dimensions"):
        pruned.attention(x, x, x, attn_mask=torch.zeros(HEADS, 5, 5))


def test_an_attention_with_a_key_of_its_own_keeps_its_heads(kit):
    coupling = room.analyse(kit.settle(Layer(Own())), kit.batch(6, 3))
    assert coupling.groups == ()
    assert dict(coupling.frozen)["attention.inner.bias_k dim 1"] == "cat meets a fixed size"


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_bias_kv=True)

    def forward(self, x):
        return self.inner(x, x, x)[0]
