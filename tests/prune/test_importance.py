"""How much a channel matters, against formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import prune as room
from edgekit.errors import PruneError
from edgekit.workload import Batch, digest_of


@pytest.fixture
def net(kit):
    return kit.settle(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3)))


@pytest.fixture
def coupling(net, kit):
    return room.analyse(net, kit.batch(3, 6, 6))


def test_norms_and_scales_equal_numpy(net, coupling):
    weight = net[0].weight.detach().double().numpy()
    bias = net[0].bias.detach().double().numpy()
    del bias
    found = {m: room.importance(net, coupling, method=m).channels["0"] for m in ("l1", "l2", "bn-scale")}
    np.testing.assert_allclose(found["l1"], np.abs(weight).sum((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found["l2"], np.sqrt((weight**2).sum((1, 2, 3))), rtol=1e-12)
    np.testing.assert_allclose(found["bn-scale"], np.abs(net[1].weight.detach().double().numpy()), rtol=1e-12)


class Blur(nn.Module):
    """A fixed filter for each channel, in a buffer that is not saved."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        filters = torch.tensor([1.0, 2.0, 1.0])[:, None] * torch.tensor([1.0, 2.0, 1.0]) / 16
        self.register_buffer("filters", filters.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x):
        return nn.functional.conv2d(x, self.filters, stride=2, padding=1, groups=self.channels)


@pytest.mark.parametrize("method", ["l1", "l2", "bn-scale"])
def test_a_fixed_filter_that_is_not_saved_goes_with_its_channels(kit, method):
    net = kit.settle(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Blur(8), nn.Conv2d(8, 2, 3)))
    example = kit.batch(3, 12, 12)
    coupling = room.analyse(net, example)
    found = room.importance(net, coupling, method=method)
    (group,) = coupling.groups
    weights = [tensor.detach().double().numpy() for tensor in (net[0].weight, net[3].filters)]
    if method != "bn-scale":
        power = 1 if method == "l1" else 2
        norm = sum((np.abs(weight) ** power).sum((1, 2, 3)) for weight in weights) ** (1 / power)
        np.testing.assert_allclose(found.channels[group.name], norm, rtol=1e-12)
    done = room.prune(net, example, room.plan(coupling, found, keep=0.5, grid=1))
    assert done.model[3].filters.shape == (4, 1, 3, 3)
    assert done.model[3].channels == 4


def test_taylor_equals_a_gradient_by_hand(kit):
    """Linear, linear, squared error: dL/dW1 = 2 W2ᵀ (y - t) xᵀ, dL/db1 = 2 W2ᵀ (y - t)."""
    net = kit.settle(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))
    batches = [Batch((torch.randn(1, 4),), {}, torch.randn(1, 3)) for _ in range(3)]
    coupling = room.analyse(net, kit.batch(4))
    before = digest_of(net)

    def loss(outputs, target):
        return ((outputs - target) ** 2).sum()

    found = room.importance(net, coupling, batches=batches, loss=loss).channels["0"]
    assert digest_of(net) == before
    assert all(parameter.grad is None for parameter in net.parameters())
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in net.parameters())
    want = np.zeros(6)
    for batch in batches:
        x, target = batch.args[0][0].double().numpy(), batch.target[0].double().numpy()
        delta = 2 * w2.T @ (w2 @ (w1 @ x + b1) + b2 - target)
        want += ((np.outer(delta, x) * w1).sum(1) + delta * b1) ** 2
    np.testing.assert_allclose(found, want, rtol=1e-4)
    again = room.importance(net, coupling, batches=batches, loss=loss).channels["0"]
    assert np.array_equal(found, again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "taylor"},
            "no batches or no loss\n  where: importance\n  rule: taylor needs both\n  way out: or use l2",
        ),
        ({"method": "magic"}, "unknown 'magic'\n  where: --importance\n  rule: taylor, bn-scale, l1 or l2"),
    ],
)
def test_bad_options(net, coupling, options, message):
    with pytest.raises(PruneError) as caught:
        room.importance(net, coupling, **options)
    assert str(caught.value) == message


def test_scales_need_a_norm(kit):
    net = kit.settle(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)))
    with pytest.raises(PruneError) as caught:
        room.importance(net, room.analyse(net, kit.batch(3, 6, 6)), method="bn-scale")
    assert str(caught.value) == (
        "no BatchNorm on these channels\n  where: 0\n  rule: bn-scale needs one\n  way out: use taylor or l2"
    )
