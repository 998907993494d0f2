"""Equalization against the network as it was, and against the ranges that it is meant to even out."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edgekit.quantize.equalization import choose_factors, equalize, sites
from edgekit.quantize.graph import load
from edgekit.quantize.rewrites import rewrite_again


def outputs(model, feeds):
    return ort.InferenceSession(ir.to_proto(model).SerializeToString()).run(None, feeds)


def uneven(network, spread=4.0):
    """Convolutions and the like whose channels differ a lot: what equalization is for."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.LayerNorm):
                factor = torch.exp(torch.randn(len(module.weight), generator=generator) * np.log(spread))
                module.weight.mul_(factor.reshape(-1, *[1] * (module.weight.ndim - 1)))
                module.bias.mul_(factor)
    return network.eval()


class Residual(nn.Module):
    """The stream that is read twice must stay as it is; the values within the branch may be scaled."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = self.first(x).relu()
        return x + self.third(self.second(x).relu())


class Attention(nn.Module):
    """Three products read what one normalization makes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x):
        x = self.norm(x)
        return torch.softmax(self.q(x) @ self.k(x).mT, -1) @ self.v(x)


def depthwise():
    return nn.Sequential(
        nn.Conv2d(8, 12, 1),
        nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12),
        nn.LeakyReLU(0.1),
        nn.Conv2d(12, 4, 1),
    )


def pooled():
    return nn.Sequential(
        nn.Conv2d(8, 12, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def spreads(model, values, feeds):
    """For each value the spread of its channels' ranges: standard deviation of the logarithms."""
    twin = model.clone()
    exposed = [value for node in twin.graph for value in node.outputs if value.name in values]
    twin.graph.outputs.clear()
    twin.graph.outputs.extend(exposed)
    made = [outputs(twin, each) for each in feeds]
    found = {}
    for index, value in enumerate(exposed):
        array = np.moveaxis(np.concatenate([arrays[index] for arrays in made]), values[value.name].axis, 0)
        limits = np.abs(array.reshape(len(array), -1)).max(axis=1)
        found[value.name] = np.log(limits[limits > 0]).std()
    return found


@pytest.mark.parametrize(
    ("make", "shape", "count"),
    [(depthwise, (8, 6, 6), 2), (pooled, (8, 8, 8), 2), (Residual, (8, 6, 6), 1), (Attention, (5, 16), 1)],
    ids=["depthwise", "pooled", "residual", "attention"],
)
def test_the_outputs_stay_and_the_channels_become_alike(fp32, make, shape, count):
    exported = fp32(uneven(make()), *shape)
    model = load(exported.path)
    rewrite_again(model, ())
    name = exported.spec.inputs[0].name
    feeds = [{name: np.random.default_rng(seed).normal(size=(4, *shape)).astype(np.float32)} for seed in range(3)]
    before = [outputs(model, each) for each in feeds]
    factors = choose_factors(model, [str(node.name) for node in model.graph], feeds)
    assert len(factors) == count
    values = {site.value: site for site in sites(model.graph)}
    assert set(values) == set(factors)
    spread_before = spreads(model, values, feeds)
    equalize(model.graph, factors)
    spread_after = spreads(model, values, feeds)
    for each, want in zip(feeds, before, strict=True):
        for have, array in zip(outputs(model, each), want, strict=True):
            np.testing.assert_allclose(have, array, rtol=1e-3, atol=1e-4 * np.abs(array).max())
    for value in values:
        assert spread_after[value] < 0.8 * spread_before[value]


def test_what_is_read_by_others_or_cut_at_six_stays(fp32):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))

        def forward(self, x):
            x = nn.functional.relu6(self.a(x))  # Its limit is the same number for every channel.
            y = self.b(x)
            return self.c(y), y  # An output.

    model = load(fp32(Odd(), 4, 5, 5).path)
    assert sites(model.graph) == []
