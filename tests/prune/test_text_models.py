"""Patterns of text models as transformers has them: products by hand, rotary positions, caches, tokens picked out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.prune import analyse
from edgekit.workload import Batch


def widths(coupling):
    return {group.name: len(group) for group in coupling.groups}


class Product(nn.Module):
    """A linear layer with its weight the other way around, as GPT-2 has it."""

    def __init__(self, taken, given):
        super().__init__()
        self.nf = given
        self.weight = nn.Parameter(torch.randn(taken, given))
        self.bias = nn.Parameter(torch.randn(given))

    def forward(self, x):
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Turned(nn.Linear):
    """A linear layer that turns its weight itself, as Falcon has it."""

    def forward(self, x):
        return x @ self.weight.T + self.bias


class TurnedToo(nn.Linear):
    """Likewise, by another name."""

    def forward(self, x):
        return torch.matmul(x, self.weight.t()) + self.bias


class Mlp(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.up, self.down, self.out = layer(8, 16), layer(16, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(x + self.down(torch.relu(self.up(x))))


@pytest.mark.parametrize("layer", [Product, Turned, TurnedToo, nn.Linear])
def test_products_written_by_hand_are_layers(kit, layer):
    net, batch = kit.settle(Mlp(layer)), kit.batch(5, 8)
    coupling, outcome = kit.check(net, batch, exact=False)
    masked = copy.deepcopy(net)
    with torch.no_grad():
        for name, axes in outcome.plan.slices.items():
            for axis, gone in axes.items():
                masked.get_parameter(name).index_fill_(axis, torch.tensor(gone), 0)
    torch.testing.assert_close(batch.call(outcome.model), batch.call(masked))
    assert widths(coupling) == {"up": 16}
    # What makes the channels decides what they are worth.
    assert coupling.producers.items() >= {("up.weight", 1 if layer is Product else 0)}
    assert outcome.model.up.weight.shape == (8, 8)
    if layer is Product:
        assert (outcome.model.up.nf, outcome.model.down.nf) == (8, 8)
    assert len(coupling.blocks) == 1


class Rotary(nn.Module):
    """Heads of queries that share keys, turned by their positions; keys go behind a cache that is empty."""

    def __init__(self, heads=4, shared=2, size=4, tokens=5):
        super().__init__()
        self.size = size
        self.q = nn.Linear(8, heads * size)
        self.k, self.v = nn.Linear(8, shared * size), nn.Linear(8, shared * size)
        self.proj = nn.Linear(heads * size, 2)
        angles = torch.outer(torch.arange(tokens), 0.1 ** torch.arange(size // 2)).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def turn(self, x):
        half = x.shape[-1] // 2
        return x * self.cos + torch.cat((-x[..., half:], x[..., :half]), -1) * self.sin

    def forward(self, x):
        shape = (*x.shape[:-1], -1, self.size)
        q, k, v = (each(x).view(shape).transpose(1, 2) for each in (self.q, self.k, self.v))
        k, v = (torch.cat([torch.tensor([], dtype=x.dtype), each], -2) for each in (self.turn(k), v))
        y = F.scaled_dot_product_attention(self.turn(q), k, v, enable_gqa=True)
        return self.proj(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


def test_heads_with_rotary_positions_and_an_empty_cache_go_whole(kit):
    net = kit.settle(Rotary())
    # Settling draws buffers, too: any numbers do.
    coupling, outcome = kit.check(net, kit.batch(5, 8), grid=1)
    assert list(widths(coupling).values()) == [2]
    small = outcome.model
    assert (small.q.out_features, small.k.out_features, small.proj.in_features) == (8, 4, 8)


class Picked(nn.Module):
    """Classifies a text by its last token of one kind, whose place only the text tells."""

    def __init__(self):
        super().__init__()
        self.embed, self.dense, self.out = nn.Embedding(9, 8), nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, ids):
        h = self.embed(ids)
        kept = h[ids.eq(2), :].view(h.size(0), -1, h.size(-1))[:, -1, :]
        return self.out(torch.tanh(self.dense(kept)))


def test_tokens_that_their_values_pick_out_freeze_nothing_behind_them(kit):
    ids = torch.tensor([[3, 4, 2, 5, 2], [2, 6, 7, 2, 8]])
    coupling, outcome = kit.check(kit.settle(Picked()), Batch((ids,), {}, None), exact=False)
    assert widths(coupling)["dense"] == 16
    assert outcome.model.dense.out_features == 8


class Idle(nn.Module):
    """What its pooling computes is not used."""

    def __init__(self):
        super().__init__()
        self.first, self.pool, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        h = torch.relu(self.first(x))
        _ = h + self.pool(h)
        return self.out(h)


def test_a_branch_that_nobody_reads_is_no_block(kit):
    coupling = analyse(kit.settle(Idle()), kit.batch(8))
    assert coupling.blocks == ()
    # It runs all the same, so what it reads stays as wide as it is.
    assert widths(coupling) == {}


class Sandwich(nn.Module):
    """A branch that ends in a norm, which works in fp32 whatever comes in."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.out = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x):
        y = self.down(torch.relu(self.up(x)))
        wide = y.float()
        normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.out(x + (normal * (1.0 + self.scale)).type_as(x))


def test_a_branch_that_ends_in_a_norm_of_its_own_can_go(kit):
    coupling = analyse(kit.settle(Sandwich()), kit.batch(8))
    assert len(coupling.blocks) == 1
    assert widths(coupling) == {"up": 16}
