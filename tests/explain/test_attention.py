import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edgekit.explain.attention import AttentionMap, attention, attention_maps, rollout
from edgekit.workload import Batch

N, T, D, HEADS = 2, 5, 8, 2


class Own(nn.Module):
    """Attention three ways over the same projections."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.qkv = nn.Linear(D, 3 * D)
        self.out = nn.Linear(D, D)

    def forward(self, x):
        q, k, v = (each.view(N, T, HEADS, -1).transpose(1, 2) for each in self.qkv(x).chunk(3, -1))
        if self.how == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v)
        elif self.how == "matmul":
            mixed = ((q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v
        else:
            scores = torch.einsum("nhqd,nhkd->nhqk", q, k) * q.shape[-1] ** -0.5
            mixed = torch.einsum("nhqk,nhkd->nhqd", F.softmax(scores, -1), v)
        return self.out(mixed.transpose(1, 2).reshape(N, T, D))


def by_hand(x, weight, bias):
    """softmax(q kᵀ / √d) for each head, in numpy."""
    q, k, _ = np.split(x @ weight.T + bias, 3, axis=-1)
    q, k = (each.reshape(N, T, HEADS, -1).transpose(0, 2, 1, 3) for each in (q, k))
    e = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(D / HEADS))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.fixture
def x():
    return torch.randn(N, T, D, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("how", ["sdpa", "matmul", "einsum"])
def test_maps_are_what_a_hand_computation_gives(x, how):
    net = nn.Sequential(Own(how)).eval()
    (found,) = attention_maps(net, Batch((x,), {}, None))
    weights = net[0].qkv.weight.detach().numpy(), net[0].qkv.bias.detach().numpy()
    assert found.name == "0"
    np.testing.assert_allclose(found.weights, by_hand(x.numpy(), *weights), atol=1e-5)


def test_torchs_own_layers_are_seen_through_their_fast_path_and_answer_as_before(x):
    layer = nn.TransformerEncoderLayer(D, HEADS, 16, batch_first=True, dropout=0.0)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    with torch.no_grad():
        before = net(x)
    found = attention_maps(net, Batch((x,), {}, None))
    assert [each.name for each in found] == ["layers.0.self_attn", "layers.1.self_attn"]
    own = net.layers[0].self_attn
    weights = own.in_proj_weight.detach().numpy(), own.in_proj_bias.detach().numpy()
    np.testing.assert_allclose(found[0].weights, by_hand(x.numpy(), *weights), atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(net(x), before)


def test_a_causal_mask_leaves_no_attention_ahead(x):
    class Causal(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x, is_causal=True)

    (found,) = attention_maps(Causal(), Batch((x,), {}, None))
    assert found.weights.shape == (N, 1, T, T)
    assert np.triu(found.weights[0, 0], 1).max() == 0
    np.testing.assert_allclose(found.weights.sum(-1), 1)


def test_a_classifiers_softmax_is_no_attention(x):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(D, 4))

        def forward(self, x):
            return (x @ self.weight).softmax(-1)

    assert attention_maps(Classifier(), Batch((x,), {}, None)) == []
    assert attention({"original": Classifier()}, [Batch((x,), {}, None)]) is None


def test_rollout_multiplies_layers_with_half_of_each_for_the_residual():
    rng = np.random.default_rng(0)
    a, b = (rng.dirichlet(np.ones(3), (1, 2, 3)) for _ in range(2))
    found = rollout([AttentionMap(name="a", weights=a), AttentionMap(name="b", weights=b)])
    first, second = ((each[0, 0] + each[0, 1]) / 4 + np.eye(3) / 2 for each in (a, b))
    np.testing.assert_allclose(found[0], second @ first)
    np.testing.assert_allclose(found.sum(-1), 1)
    assert rollout([AttentionMap(name="a", weights=a), AttentionMap(name="b", weights=b[:, :, :, :2])]) is None


def test_fewer_heads_and_layers_are_compared_by_name(x):
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(D, HEADS, 16, batch_first=True)
    deep = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    shallow = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval()
    shallow.load_state_dict({name: value for name, value in deep.state_dict().items() if "layers.1" not in name})
    one = Batch((x[:1],), {}, None)
    found = attention({"original": deep, "compressed": shallow}, [one])
    assert set(found.layer_correlations) == {"layers.0.self_attn"}
    assert found.layer_correlations["layers.0.self_attn"].value == 1.0
    assert found.rollout_correlation.value < 1
    assert found.to_dict()["layers"]["compressed"] == [
        {"name": "layers.0.self_attn", "heads": HEADS, "queries_keys": [T, T]}
    ]
