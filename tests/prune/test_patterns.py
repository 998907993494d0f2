"""Patterns of other people's networks that need more than the common operators: what narrows, and that it is right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn


def widths(coupling):
    return {group.name: len(group) for group in coupling.groups}


class Net(nn.Module):
    """Modules by name, and the function that runs them."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.run(self, x)


def between(code, **parts):
    """Two convolutions of 8 channels and what stands between them."""
    return Net(lambda m, x: m.last(code(m, m.first(x))), first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(8, 2, 1), **parts)


def strided(_, x):
    # Space to depth and back, as views have it.
    n, c, h, w = x.shape
    x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return x.reshape(n, c, 2, 2, h // 2, w // 2).mean((2, 3))


@pytest.mark.parametrize(
    "code",
    [
        lambda _, x: torch.roll(x, (1, 2), (2, 3)) + torch.flip(x, (3,)),
        lambda _, x: x / x.norm(p=2, dim=(2, 3), keepdim=True).clamp_min(1e-3),
        lambda _, x: (x - x.mean((2, 3), keepdim=True)) / torch.sqrt(torch.var(x, (2, 3), keepdim=True) + 1e-3),
        lambda _, x: sum(torch.var_mean(x, (2, 3), keepdim=True)) + x,
        lambda _, x: torch.addcmul(x, torch.relu(x), torch.sigmoid(x)),
        lambda _, x: torch.logsumexp(x, 3, keepdim=True) * x + x.max(2, keepdim=True)[0],
        lambda _, x: F.avg_pool2d(x.tile(1, 1, 2, 2), 2),
        lambda _, x: x.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5)),
        lambda _, x: x[:, :, torch.tensor([0, 2, 1]), :],
        lambda _, x: x.broadcast_to(x.shape).reshape_as(x),
        lambda _, x: x.cumsum(2) * x.cumprod(3),
        lambda _, x: F.interpolate(x, (2, 3), mode="bicubic", antialias=True),
        strided,
    ],
    ids=[
        "roll",
        "norm",
        "var",
        "var_mean",
        "addcmul",
        "extremes",
        "tile",
        "unfold",
        "index",
        "as",
        "running",
        "antialiased",
        "space-to-depth",
    ],
)
def test_what_works_along_other_dimensions_leaves_the_channels_free(kit, code):
    coupling, _ = kit.check(kit.settle(between(code)), kit.batch(3, 4, 4))
    assert widths(coupling) == {"first": 8}


def test_running_sums_over_channels_keep_them(kit):
    coupling, _ = kit.check(kit.settle(between(lambda _, x: x.cumsum(1))), kit.batch(3, 4, 4))
    assert widths(coupling) == {}


def test_patches_and_pixels(kit):
    net = Net(
        lambda m, x: m.last(F.fold(m.mix(F.unfold(m.first(x), 2, stride=2)), (4, 4), 2, stride=2)),
        first=nn.Conv2d(3, 8, 1),
        mix=nn.Conv1d(32, 24, 1),
        last=nn.Conv2d(6, 2, 1),
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 4, 4), grid=1)
    assert widths(coupling) == {"first": 8, "mix": 6}
    assert (outcome.model.mix.in_channels, outcome.model.mix.out_channels) == (16, 12)

    net = Net(lambda m, x: m.last(F.pixel_unshuffle(m.first(x), 2)), first=nn.Conv2d(3, 8, 1), last=nn.Conv2d(32, 2, 1))
    coupling, outcome = kit.check(kit.settle(net), kit.batch(3, 4, 4))
    assert widths(coupling) == {"first": 8}
    assert outcome.model.last.in_channels == 16


def test_a_response_normalized_over_channels_stays(kit):
    """Global response normalization of ConvNeXt v2: each channel is divided by the mean over all."""

    def code(_, x):
        energy = x.norm(p=2, dim=(2, 3), keepdim=True)
        return x + x * energy / (energy.mean(1, keepdim=True) + 1e-3)

    coupling, _ = kit.check(kit.settle(between(code)), kit.batch(3, 4, 4))
    assert widths(coupling) == {}
    assert "reduces over it" in dict(coupling.frozen)["first.weight dim 0"]


class Standardized(nn.Conv2d):
    """A convolution whose weights are standardized when it is called."""

    def forward(self, x):
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias)


@pytest.mark.parametrize("kernel", [1, 3])
def test_weights_that_are_standardized_when_called_keep_what_they_read(kit, kernel):
    net = Net(
        lambda m, x: m.c(torch.relu(m.b(torch.relu(m.a(x))))),
        a=Standardized(3, 8, kernel),
        b=Standardized(8, 12, kernel),
        c=nn.Conv2d(12, 2, 1),
    )
    coupling, _ = kit.check(kit.settle(net), kit.batch(3, 7, 7))
    # What b reads is what its weights are standardized over; what it makes is not.
    assert widths(coupling) == {"b": 12}
    assert "removing a channel would change the others" in dict(coupling.frozen)["b.weight dim 1"]


def test_regions_without_gradients_or_autocast_are_looked_into(kit):
    def code(m, x):
        with torch.autocast("cpu", enabled=False):
            y = torch.relu(x) * 2
            with torch.no_grad():
                z = m.inner(y)
        return torch.relu(z) + y

    net = between(code, inner=nn.Conv2d(8, 8, 1))
    coupling, _ = kit.check(kit.settle(net), kit.batch(3, 4, 4))
    assert widths(coupling) == {"first": 8}


class Window(nn.Module):
    """Attention inside windows of a rolled image, with a table of biases by relative position, as Swin has it."""

    def __init__(self, width=8, heads=4, side=2):
        super().__init__()
        self.num_heads, self.side = heads, side
        self.scale = (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        apart = place[:, :, None] - place[:, None] + side - 1
        self.register_buffer("index", apart[0] * (2 * side - 1) + apart[1])

    def forward(self, x):
        n, h, w, c = x.shape
        s = self.side
        x = torch.roll(x, (-1, -1), (1, 2))
        x = x.view(n, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        q, k, v = self.qkv(x).reshape(len(x), s * s, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(s * s, s * s, -1).permute(2, 0, 1)
        weights = torch.softmax(q * self.scale @ k.transpose(-2, -1) + bias[None], -1)
        x = self.proj((weights @ v).transpose(1, 2).reshape(len(x), s * s, -1))
        x = x.view(n, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x, (1, 1), (1, 2))


def test_heads_of_windowed_attention_take_their_rows_of_the_table_along(kit):
    net = Net(
        lambda m, x: m.last(x.permute(0, 2, 3, 1) + m.attention(m.norm(x.permute(0, 2, 3, 1)))),
        norm=nn.LayerNorm(8),
        attention=Window(),
        last=nn.Linear(8, 2),
    )
    coupling, outcome = kit.check(kit.settle(net), kit.batch(8, 4, 4), grid=1, exact=False)
    assert widths(coupling) == {"attention.qkv": 4}
    assert outcome.model.attention.table.shape == (9, 2)
    assert outcome.model.attention.num_heads == 2


class Linear(nn.Module):
    """Attention without a softmax, over channels that one convolution makes, in fp32 whatever comes in."""

    def __init__(self, heads=4, size=2):
        super().__init__()
        self.size = size
        self.qkv = nn.Conv2d(3, 3 * heads * size, 1, bias=False)
        self.proj = nn.Conv2d(heads * size, 2, 1)

    def forward(self, x):
        n, _, h, w = x.shape
        qkv = self.qkv(x).reshape(n, -1, 3 * self.size, h * w).transpose(-1, -2)
        q, k, v = (part.to(torch.float64) for part in qkv.chunk(3, -1))
        q, k, v = torch.relu(q), torch.relu(k), F.pad(v, (0, 1), value=1.0)
        out = q @ (k.transpose(-1, -2) @ v)
        out = out[..., :-1] / (out[..., -1:] + 1e-3)
        return self.proj(out.to(x.dtype).transpose(-1, -2).reshape(n, -1, h, w))


def test_heads_of_linear_attention_go_whole(kit):
    coupling, outcome = kit.check(kit.settle(Linear()), kit.batch(3, 4, 4), grid=1, exact=False)
    assert widths(coupling) == {"qkv": 4}
    assert outcome.model.qkv.out_channels == 12


class Remembering(nn.Module):
    """Adds a bias that it computes from its weights once in eval mode, as attentions of timm do."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(8, 2))
        self.kept = {}

    def train(self, mode=True):  # noqa: FBT002 - torch's signature
        super().train(mode)
        if mode:
            self.kept = {}

    def forward(self, x):
        if self.training or torch.compiler.is_compiling():
            return x + self.table.sum(1)[:, None, None]
        if "bias" not in self.kept:
            self.kept["bias"] = self.table.sum(1)[:, None, None].detach()
        return x + self.kept["bias"]


def test_what_a_module_has_computed_from_its_weights_does_not_outlive_them(kit):
    net = kit.settle(between(lambda m, x: m.bias(x), bias=Remembering()))
    batch = kit.batch(3, 4, 4)
    batch.call(net)
    assert net.bias.kept["bias"].shape == (8, 1, 1)
    coupling, outcome = kit.check(net, batch, exact=False)
    assert widths(coupling) == {"first": 8}
    small = outcome.model
    assert small.bias.table.shape == (4, 2)
    found = batch.call(small)
    wanted = small.last(small.first(*batch.args) + small.bias.table.sum(1)[:, None, None])
    torch.testing.assert_close(found, wanted)
    assert net.bias.kept["bias"].shape == (8, 1, 1)  # the given model is left as it is
    assert not net.training
