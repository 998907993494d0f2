"""Small networks over sequences with random parts: half of what can go goes, and the ONNX file computes the same."""

from __future__ import annotations

import random

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit import prune as room
from edgekit.export import export
from tests.marks import seldom

KINDS = ("recurrent", "both ways", "attention", "stock", "hidden", "gated", "norm", "convolution")
SEEDS = range(14)


class Attention(nn.Module):
    def __init__(self, width, heads, head):
        super().__init__()
        self.heads, self.head = heads, head
        self.qkv, self.out = nn.Linear(width, 3 * heads * head), nn.Linear(heads * head, width)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, self.head).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, self.heads * self.head))


class Sequence(nn.Module):
    """A stem, random steps over [n, tokens, width], and a head; all of it comes from one seed."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)  # noqa: S311 - wiring, not secrets
        self.stem, width = nn.Linear(5, 8), 8
        self.steps, self.wiring = nn.ModuleList(), []
        for _ in range(draw.randint(2, 4)):
            kind = draw.choice(KINDS)
            other = draw.choice([8, 12])
            if kind in ("recurrent", "both ways"):
                cell = draw.choice([nn.LSTM, nn.GRU, nn.RNN])
                both = kind == "both ways"
                step = cell(width, other, draw.randint(1, 3), batch_first=True, bidirectional=both)
                width = other * (2 if both else 1)
            elif kind == "attention":
                step = Attention(width, 4, draw.choice([2, 3]))
            elif kind == "stock":
                step = nn.MultiheadAttention(width, 4, batch_first=True)
            elif kind == "hidden":
                step = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))
            elif kind == "gated":
                step = nn.ModuleList([nn.Linear(width, 12), nn.Linear(width, 12), nn.Linear(12, width)])
            elif kind == "norm":
                step = nn.LayerNorm(width)
            else:
                step, width = nn.Conv1d(width, other, 3, padding=1), other
            self.steps.append(step)
            self.wiring.append(kind)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        for kind, step in zip(self.wiring, self.steps, strict=True):
            if kind in ("recurrent", "both ways"):
                x = step(x)[0]
            elif kind == "stock":
                x = x + step(x, x, x, need_weights=False)[0]
            elif kind in ("attention", "hidden"):
                x = x + step(x)
            elif kind == "gated":
                x = x + step[2](F.silu(step[0](x)) * step[1](x))
            elif kind == "norm":
                x = step(x)
            else:
                x = F.relu(step(x.transpose(1, 2))).transpose(1, 2)
        return self.head(x.mean(1))


@pytest.mark.parametrize("seed", [seldom(seed) if seed % 2 else seed for seed in SEEDS])
def test_half_of_a_random_sequence_network(kit, tmp_path, seed):
    net = kit.settle(Sequence(seed), seed)
    example = kit.batch(6, 5)
    coupling = room.analyse(net, example)
    # What has no LayerNorm before it, every recurrent layer but the first, and every branch may go.
    layers = [m.num_layers for m in net.modules() if isinstance(m, nn.RNNBase)]
    branches = [kind for kind in net.wiring if kind in ("attention", "stock", "hidden", "gated")]
    assert len(coupling.blocks) == sum(layers) - len(layers) + len(branches)
    assert not [what for what, why in coupling.frozen if "does not run" in why or "differs" in why]
    wide = [kind for kind in net.wiring if kind in ("recurrent", "both ways", "attention", "stock", "hidden", "gated")]
    assert len(coupling.groups) >= len(wide) - ("norm" in net.wiring) * wide.count("recurrent")
    draw = random.Random(seed)  # noqa: S311
    gone = [block.name for block in coupling.blocks if draw.random() < 0.5]
    inside = room.inside(coupling)
    kept = {
        group.name: draw.sample(range(len(group)), len(group) // 2)
        for group in coupling.groups
        if inside.get(group.name) not in {f"block {name}" for name in gone}
    }
    for blocks, some in (([], kept), (gone, kept)):
        outcome = room.prune(net, example, room.make_plan(coupling, some, blocks))
        assert outcome.proof.max_relative_difference < 1e-12
    assert sum(p.numel() for p in outcome.model.parameters()) < sum(p.numel() for p in net.parameters())
    if seed % 4:
        return
    done = export(outcome.model, example, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    x = torch.randn(3, 6, 5)
    (have,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(have, outcome.model(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_generator_reaches_every_kind_of_step():
    assert {kind for seed in SEEDS for kind in Sequence(seed).wiring} == set(KINDS)
