"""Bias correction, by formula and by its effect."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekit.quantize import bias, plan_quantization, planning, quantize

CHANNELS = 16


@pytest.fixture(scope="module")
def depthwise(fp32):
    """Nine weights a channel, and inputs that are never negative: rounding shifts means as far as it can."""
    torch.manual_seed(3)
    layers = []
    for _ in range(3):
        layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS), nn.ReLU()]
    return fp32(nn.Sequential(*layers, nn.Conv2d(CHANNELS, 4, 1)), CHANNELS, 8, 8)


@pytest.fixture(scope="module")
def positive(depthwise):
    rng = np.random.default_rng(0)
    name = depthwise.spec.inputs[0].name
    return [{name: rng.gamma(2, 1, (32, CHANNELS, 8, 8)).astype(np.float32)} for _ in range(8)]


def mean_error(run, source, path, feeds):
    return np.abs((run(path, feeds).astype(np.float64) - run(source, feeds)).mean((0, 2, 3)))


def test_means_of_fresh_samples_come_back(depthwise, positive, run, tmp_path):
    options = {"spec": depthwise.spec, "target": "x86-avx2"}
    plain = quantize(depthwise.path, positive[:6], tmp_path / "plain.onnx", bias_correction=False, **options)
    corrected = quantize(depthwise.path, positive[:6], tmp_path / "corrected.onnx", **options)
    assert corrected.plan.bias_shift
    assert not plain.plan.bias_shift
    before = mean_error(run, depthwise.path, plain.path, positive[7])
    after = mean_error(run, depthwise.path, corrected.path, positive[7])
    assert after.mean() < 0.5 * before.mean()


def test_the_correction_of_one_layer_is_the_error_of_its_weights_times_the_mean_input(fp32):
    torch.manual_seed(4)
    layer = nn.Conv2d(40, 6, 1)
    source = fp32(nn.Sequential(layer), 40, 5, 5)
    rng = np.random.default_rng(1)
    x = rng.gamma(2, 1, (64, 40, 5, 5)).astype(np.float32)
    data = [{source.spec.inputs[0].name: x}]
    plan = plan_quantization(source.path, data, spec=source.spec, target="x86-vnni", weights="max")
    weight = layer.weight.detach().double().numpy()[:, :, 0, 0]
    step = np.abs(weight).max(1, keepdims=True) / 127
    error = weight - np.round(weight / step) * step
    (shift,) = plan.bias_shift.values()
    # The inputs are rounded, too, and without bias.
    np.testing.assert_allclose(shift, error @ x.mean((0, 2, 3)).astype(np.float64), rtol=0.1, atol=2e-3)


def test_many_layers_are_corrected_a_few_at_a_time(depthwise, positive, run, tmp_path, monkeypatch):
    monkeypatch.setattr(bias, "TURNS", 2)
    steps = []
    options = {"spec": depthwise.spec, "target": "x86-avx2"}
    plain = quantize(depthwise.path, positive[:6], tmp_path / "plain.onnx", bias_correction=False, **options)
    done = quantize(depthwise.path, positive[:6], tmp_path / "two.onnx", progress=steps.append, **options)
    assert [step.done for step in steps if step.work == "correcting biases"] == [2, 3]
    assert len(done.plan.bias_shift) == 3
    before = mean_error(run, depthwise.path, plain.path, positive[7])
    assert mean_error(run, depthwise.path, done.path, positive[7]).mean() < 0.8 * before.mean()


def test_a_correction_that_makes_it_worse_is_not_kept(depthwise, positive, tmp_path, monkeypatch):
    def harm(model, placement, *_):
        layers = [node for node in model.graph if node.name in placement.nodes and node.op_type == "Conv"]
        return {str(node.name): tuple(5.0 for _ in range(node.outputs[0].shape[1])) for node in layers}

    monkeypatch.setattr(planning, "bias_shifts", harm)
    done = quantize(depthwise.path, positive, tmp_path / "kept.onnx", spec=depthwise.spec)
    assert done.plan.bias_shift == {}
    quantize(depthwise.path, positive, tmp_path / "plain.onnx", spec=depthwise.spec, bias_correction=False)
    # Held-back batches are not calibrated on, so that the ranges differ; what counts is that no bias moved by 5.
    kept, plain = (onnx.load(tmp_path / name) for name in ("kept.onnx", "plain.onnx"))
    assert {n.op_type for n in kept.graph.node} == {n.op_type for n in plain.graph.node}
    assert done.sqnr_db > 20
