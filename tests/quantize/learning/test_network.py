"""The graph in torch against ONNX Runtime: as it is, and with a plan's integers."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekit.errors import QuantizeError
from edgekit.quantize.equalization import equalize
from edgekit.quantize.graph import load
from edgekit.quantize.learning.network import Network
from edgekit.quantize.learning.simulation import Simulation
from edgekit.quantize.rewrites import rewrite_again


class Various(nn.Module):
    """Convolutions of every kind, and what stands between them in practice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, (1, 1))
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 3, 2, 1, 1)
        self.group_norm, self.norm = nn.GroupNorm(4, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.hardswish(self.stem(x))
        a, b = F.silu(self.depthwise(x)).chunk(2, 1)
        x = F.relu6(self.grouped(torch.cat([b, a], 1)) + x)
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2) + F.avg_pool2d(F.leaky_relu(x), 2, ceil_mode=True)
        x = self.group_norm(self.up(x) * torch.sigmoid(x.mean((2, 3), keepdim=True))[:, :8])
        x = F.interpolate(x, scale_factor=2)[:, :, 1::2] + F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2)[:, :, ::2]
        x = self.norm(x.flatten(2).transpose(1, 2))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(F.gelu(x).mean(1)), torch.tanh(x[:, 0]).clamp(-0.5, 0.5)


def torch_outputs(network, feeds):
    with torch.no_grad():
        made = network(*[torch.from_numpy(array) for array in feeds.values()])
    return [tensor.numpy() for tensor in (made if isinstance(made, tuple) else (made,))]


def onnx_outputs(path, feeds, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    return ort.InferenceSession(path, options).run(None, feeds)


def test_every_value_is_what_onnx_runtime_makes(fp32):
    torch.manual_seed(0)
    source = fp32(Various().eval(), 3, 16, 16)
    name = source.spec.inputs[0].name
    feeds = {name: np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)}
    network = Network(load(source.path).graph)
    for have, want in zip(torch_outputs(network, feeds), onnx_outputs(source.path, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [("x86-vnni", False), ("x86-vnni", True), ("tensorrt", True)])
def test_a_simulated_plan_is_what_its_file_computes(resnet, int8, draw, kind, tmp_path):
    from edgekit.quantize import apply_plan

    target, shifted = kind
    plan = int8(resnet, bias_correction=False, target=target).plan
    if shifted:
        model = load(resnet.path)
        rewrite_again(model, ())
        widths = {str(n.name): n.outputs[0].shape[1] for n in model.graph if n.op_type in ("Conv", "Gemm")}
        rng = np.random.default_rng(0)
        plan = replace(
            plan, bias_shift={n: tuple(rng.normal(size=w) / 10) for n, w in widths.items() if n in plan.nodes}
        )
    path = tmp_path / "int8.onnx"
    apply_plan(resnet.path, plan, path)
    model = load(resnet.path)
    rewrite_again(model, ())
    equalize(model.graph, plan.equalized)
    (feeds,) = draw(resnet, seed=5, batches=1)
    (have,) = torch_outputs(Simulation(model.graph, plan), feeds)
    # Without optimizations ONNX Runtime computes Q, DQ and fp32 operators one by one, as the simulation does.
    (want,) = onnx_outputs(path, feeds, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    (exact,) = onnx_outputs(resnet.path, feeds)
    noise = np.abs(want - exact).mean()
    # A few numbers lie on the edge between two integers, and fall to either side.
    assert np.median(np.abs(have - want)) < 0.02 * noise
    assert np.abs(have - exact).mean() > 0.5 * noise


def test_what_has_no_gradient_is_named(fp32):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(4, 4, batch_first=True)

        def forward(self, x):
            return self.gru(x)[0]

    with pytest.raises(QuantizeError, match="no gradient for GRU"):
        Network(load(fp32(Recurrent().eval(), 5, 4).path).graph)
