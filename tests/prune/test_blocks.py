"""Residual blocks that go."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit import prune as room
from edgekit.workload import Batch, digest_of


class Block(nn.Module):
    def __init__(self, width, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, 2 * width, 3, stride, 1, bias=False), nn.BatchNorm2d(2 * width)
        self.conv2, self.bn2 = nn.Conv2d(2 * width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.stride = stride

    def forward(self, x):
        shortcut = F.avg_pool2d(x, 2) if self.stride == 2 else x
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 1, 1)
        self.blocks = nn.Sequential(Block(8), Block(8, stride=2), Block(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@pytest.fixture
def net(kit):
    return kit.settle(Net())


@pytest.fixture
def coupling(net, kit):
    return room.analyse(net, kit.batch(3, 8, 8))


def without(net, block):
    """The block's last normalization multiplies by zero and adds zero."""
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.blocks[block].bn2.weight.zero_()
        twin.blocks[block].bn2.bias.zero_()
    return twin


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_removed_block_is_one_whose_last_norm_is_zero(net, coupling, kit, block):
    before = digest_of(net)
    outcome = room.prune(net, kit.batch(3, 8, 8), room.make_plan(coupling, blocks=[f"blocks.{block}"]))
    # Another batch size than the one it was analysed with.
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(outcome.model(x), without(net, block)(x))
    assert digest_of(net) == before
    assert sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in outcome.model.parameters()) == (
        2 * 8 * 16 * 9 + 2 * 16 + 2 * 8
    )


def test_all_blocks_and_a_narrowed_stream(net, coupling, kit):
    plan = room.make_plan(coupling, {"stem": [0, 2, 3, 7]}, [block.name for block in coupling.blocks])
    outcome = room.prune(net, kit.batch(3, 8, 8), plan)
    kept = [0, 2, 3, 7]
    x = torch.randn(3, 3, 8, 8)
    stem = F.conv2d(x, net.stem.weight[kept], net.stem.bias[kept], padding=1)
    want = F.linear(F.avg_pool2d(stem.relu(), 2).mean((2, 3)), net.head.weight[:, kept], net.head.bias)
    torch.testing.assert_close(outcome.model(x), want)


def test_zeros_follow_the_input_in_batch_dtype_and_device():
    zeros = room.ZeroBranch((4, 2))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        out = zeros(torch.ones(7, 3, dtype=dtype))
        assert (out.shape, out.dtype, out.any().item()) == ((7, 4, 2), dtype, False)
    assert repr(zeros) == "ZeroBranch(shape=(4, 2))"


class Normless(nn.Module):
    """Its branch ends in a normalization that has no weights, only statistics."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.norm(self.conv(x)))


def test_a_branch_that_ends_without_weights_narrows_with_its_stream(kit):
    net = kit.settle(Normless())
    coupling = room.analyse(net, kit.batch(3, 4, 4))
    plan = room.make_plan(coupling, {"stem": [1, 2, 5]}, [block.name for block in coupling.blocks])
    pruned = room.prune(net, kit.batch(3, 4, 4), plan).model
    assert pruned.norm.shape == (3, 4, 4)


class Watched(nn.Module):
    """The branch's inside is read from outside: that part has to stay."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.a(x)
        return self.c(x + self.b(hidden)) + hidden.sum()


def test_what_is_read_from_outside_the_branch_stays(kit):
    net = kit.settle(Watched())
    coupling = room.analyse(net, kit.batch(8))
    assert [(block.name, block.modules) for block in coupling.blocks] == [("b", ())]
    x = torch.randn(3, 8)
    pruned = room.prune(net, kit.batch(8), room.make_plan(coupling, blocks=["b"])).model
    torch.testing.assert_close(pruned(x), net.c(x) + net.a(x).sum())


class Activated(nn.Module):
    """Its branch's layers end in an activation that writes in place, within modules of their own."""

    def __init__(self):
        super().__init__()
        part = lambda: nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.SiLU(inplace=True))  # noqa: E731
        self.stem, self.first, self.second, self.head = nn.Conv2d(3, 8, 1), part(), part(), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.second(self.first(x)))


def test_a_branch_that_ends_in_an_activation(kit):
    net = kit.settle(Activated())
    coupling = room.analyse(net, kit.batch(3, 4, 4))
    (block,) = coupling.blocks
    assert (block.last, block.whole, block.modules) == ("second.1", "second", ("first",))
    plan = room.make_plan(coupling, {"stem": [0, 3, 6]}, [block.name])
    x, kept = torch.randn(3, 3, 4, 4), [0, 3, 6]
    stem = F.conv2d(x, net.stem.weight[kept], net.stem.bias[kept])
    want = F.conv2d(stem, net.head.weight[:, kept], net.head.bias)
    torch.testing.assert_close(room.prune(net, kit.batch(3, 4, 4), plan).model(x), want)


def test_actions_combine_and_leave_out_widths_inside_removed_blocks(net, coupling):
    ranks = room.importance(net, coupling, method="l1")
    listed = room.actions(coupling, ranks, grid=4)
    assert [action.text for action in listed] == [
        *(f"remove block blocks.{i}" for i in range(3)),
        "stem: 8 -> 4",
        *(f"blocks.{i}.conv1: 16 -> {width}" for i in range(3) for width in (12, 8, 4)),
    ]
    assert room.inside(coupling) == {f"blocks.{i}.conv1": f"block blocks.{i}" for i in range(3)}
    pick = {action.text: action for action in listed}
    chosen = [pick[t] for t in ("remove block blocks.1", "blocks.1.conv1: 16 -> 8", "blocks.2.conv1: 16 -> 12")]
    plan = room.combine(coupling, chosen)
    assert str(plan) == "blocks.2.conv1: 16 -> 12 channels\nblocks.1: removed, its shortcut stays"
    # The least important go: those whose filters have the smallest L1 norm.
    norms = net.blocks[2].conv1.weight.detach().abs().sum((1, 2, 3))
    assert set(plan.narrowings[0].kept) == set(norms.topk(12).indices.tolist())
    assert not any(name.startswith("blocks.1.") for name in plan.slices)


def test_dropping_blocks_leaves_their_groups_alone_in_plan(net, coupling, kit):
    ranks = room.importance(net, coupling, method="l1")
    plan = room.plan(coupling, ranks, keep=0.5, grid=4, drop_blocks=["blocks.0", "blocks.2"])
    assert [n.group for n in plan.narrowings] == ["stem", "blocks.1.conv1"]
    assert room.prune(net, kit.batch(3, 8, 8), plan).model(torch.randn(1, 3, 8, 8)).shape == (1, 4)


def test_lift_puts_weights_back_in_their_places(net, coupling, kit):
    plan = room.make_plan(coupling, {"stem": [0, 2, 3, 7], "blocks.2.conv1": range(1, 13)}, ["blocks.1"])
    pruned = room.prune(net, kit.batch(3, 8, 8), plan).model
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = digest_of(net), digest_of(pruned)
    lifted = room.lift(net, pruned, plan)
    assert (digest_of(net), digest_of(pruned)) == before
    for name, value in room.apply(lifted, plan).state_dict().items():
        assert torch.equal(value, pruned.state_dict()[name]), name
    # What the plan removes is as it was.
    assert torch.equal(lifted.stem.weight[[1, 4, 5, 6]], net.stem.weight[[1, 4, 5, 6]])
    assert torch.equal(lifted.blocks[1].conv1.weight, net.blocks[1].conv1.weight)
    assert torch.equal(lifted.blocks[2].conv2.weight[[0, 2, 3, 7]][:, 1:13], pruned.blocks[2].conv2.weight)
    # So a bolder plan starts from what was recovered.
    bolder = room.make_plan(coupling, {"stem": [0, 7], "blocks.2.conv1": range(1, 9)}, ["blocks.1"])
    room.prune(lifted, Batch((torch.randn(2, 3, 8, 8),), {}, None), bolder)
