"""Small networks with random wiring: half of the channels go, and the rest computes the same."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.marks import seldom


class Wired(nn.Module):
    """A stem, random steps, and a head; every step's modules and wiring come from one seed."""

    def __init__(self, seed):
        super().__init__()
        draw = random.Random(seed)  # noqa: S311 - wiring, not secrets
        self.stem, width = self._conv(3, 8), 8
        self.steps, self.wiring = nn.ModuleList(), []
        for _ in range(draw.randint(3, 6)):
            kind = draw.choice(["plain", "residual", "dense", "depthwise", "widen", "gate", "pool", "twin", "shuffle"])
            other = draw.choice([8, 12, 16])
            if kind == "plain":
                parts, width = [self._conv(width, other)], other
            elif kind == "residual":
                parts = [self._conv(width, other), self._conv(other, width)]
            elif kind == "dense":
                parts, width = [self._conv(width, other)], width + other
            elif kind == "depthwise":
                parts, width = [self._conv(width, width, groups=width), self._conv(width, other)], other
            elif kind == "widen":
                parts, width = [self._conv(width, width + 8)], width + 8
            elif kind == "gate":
                parts = [nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)]
            elif kind == "twin":
                parts, width = [self._conv(width, other), self._conv(width, other)], other
            elif kind == "shuffle":
                parts, width = [self._conv(width, 2 * other)], 2 * other
            else:
                parts = []
            self.steps.append(nn.ModuleList(parts))
            self.wiring.append(kind)
        self.flat = draw.random() < 0.5
        self.head = nn.Linear(width * (4 if self.flat else 1), 5)

    @staticmethod
    def _conv(cin, cout, groups=1):
        return nn.Sequential(nn.Conv2d(cin, cout, 3, 1, 1, groups=groups, bias=groups > 1), nn.BatchNorm2d(cout))

    def forward(self, x):
        x = F.relu(self.stem(x))
        for kind, parts in zip(self.wiring, self.steps, strict=True):
            if kind == "plain":
                x = F.hardswish(parts[0](x))
            elif kind == "residual":
                x = F.relu(x + parts[1](F.relu(parts[0](x))))
            elif kind == "dense":
                x = torch.cat([x, F.relu(parts[0](x))], 1)
            elif kind == "depthwise":
                x = F.relu6(parts[1](F.silu(parts[0](x))))
            elif kind == "widen":
                x = F.relu(parts[0](x) + F.pad(x, (0, 0, 0, 0, 4, 4)))
            elif kind == "gate":
                x = x * torch.sigmoid(parts[1](F.relu(parts[0](x.mean((2, 3), keepdim=True)))))
            elif kind == "twin":
                x = F.max_pool2d(parts[0](x), 3, 1, 1) * F.avg_pool2d(parts[1](x), 3, 1, 1)
            elif kind == "shuffle":
                y = F.relu(parts[0](x))
                n, c, h, w = y.shape
                x = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
            else:
                x = F.max_pool2d(x, 3, 1, 1, ceil_mode=True)
        x = F.adaptive_avg_pool2d(x, 2) if self.flat else x.mean((2, 3))
        return self.head(x.flatten(1))


def counted(plan, model):
    """The number of parameters that should be left, from the shapes before and the numbers of indexes that go."""
    total = 0
    for name, value in model.named_parameters():
        size = 1
        for axis, length in enumerate(value.shape):
            size *= length - len(plan.slices.get(name, {}).get(axis, ()))
        total += size
    return total


@pytest.mark.parametrize("seed", [seldom(seed) if seed % 2 else seed for seed in range(26)])
def test_half_of_a_random_network(kit, seed):
    net = kit.settle(Wired(seed), seed)
    for scope in ("uniform", "global"):
        coupling, outcome = kit.check(net, kit.batch(3, 6, 6), scope=scope)
        assert outcome.proof.max_relative_difference < 1e-12
        left = sum(p.numel() for p in outcome.model.parameters())
        assert left == counted(outcome.plan, net)
        if coupling.groups:
            assert left < sum(p.numel() for p in net.parameters())
        for narrowing in outcome.plan.narrowings:
            # Shuffled channels go two by two.
            indexes = {len(i) for i in coupling.group(narrowing.group).channels[0].values()}
            assert (narrowing.before - len(narrowing.kept)) * min(indexes) % 4 == 0
        for module in outcome.model.modules():
            if isinstance(module, nn.Conv2d):
                assert module.weight.shape[:2] == (module.out_channels, module.in_channels // module.groups)


def test_the_generator_reaches_every_kind_of_step():
    kinds = {kind for seed in range(26) for kind in Wired(seed).wiring}
    assert kinds == {"plain", "residual", "dense", "depthwise", "widen", "gate", "pool", "twin", "shuffle"}
