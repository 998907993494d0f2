"""Training with quantized weights and activations: what is trained is what the file computes."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from edgekit.quantize import apply_plan
from edgekit.quantize.graph import load
from edgekit.quantize.learning.network import Network
from edgekit.quantize.learning.training import MEMORY, THRESHOLD, harvest, trainable


@pytest.fixture
def plan(resnet, int8):
    return int8(resnet).plan


def predictions(module, feeds):
    with torch.no_grad():
        return module(*[torch.from_numpy(array) for array in feeds.values()]).numpy()


def test_it_starts_as_the_file_and_ends_as_the_file(resnet, plan, draw, run, tmp_path):
    first = tmp_path / "first.onnx"
    apply_plan(resnet.path, plan, first)
    (feeds,) = draw(resnet, seed=3, batches=1)
    network = trainable(resnet.path, plan)
    noise = np.abs(run(first, feeds) - run(resnet.path, feeds)).mean()
    assert np.median(np.abs(predictions(network.eval(), feeds) - run(first, feeds))) < 0.3 * noise

    # Towards other weights, so that everything has to move.
    teacher = Network(load(resnet.path).graph)
    with torch.no_grad():
        for buffer in teacher.buffers():
            if buffer.ndim > 1:
                buffer.mul_(1.2)
    trained = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)
    losses = []
    for batch in draw(resnet, seed=1, batches=1) * 25:
        inputs = [torch.from_numpy(array) for array in batch.values()]
        with torch.no_grad():
            wanted = teacher(*inputs)
        loss = F.mse_loss(trained(*inputs), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert any(name.startswith("growth_") and parameter.any() for name, parameter in trained.named_parameters())

    source, path = tmp_path / "source.onnx", tmp_path / "trained.onnx"
    new = harvest(resnet.path, plan, trained, source)
    apply_plan(source, new, path)
    have, want = run(path, feeds), predictions(trained.eval(), feeds)
    assert np.median(np.abs(have - want)) < 0.3 * noise
    assert np.abs(have - run(first, feeds)).mean() > 3 * noise  # It has moved.
    assert new.activations != plan.activations
    assert set(new.activations) == set(plan.activations)
    assert new.bias_shift == {}


def test_values_on_one_scale_stay_on_one(resnet, plan):
    one = next(iter(plan.activations.values()))
    shared = replace(plan, activations=dict.fromkeys(plan.activations, one))
    network = trainable(resnet.path, shared)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("growth_"):
                parameter.fill_(0.1)
    scales = {float(network.held(name).detach()) for name in shared.activations}
    assert len(scales) == 1
    assert scales.pop() == pytest.approx(one.scale * np.exp(0.1))


def test_a_weight_that_swings_is_frozen(resnet, plan):
    network = trainable(resnet.path, plan).train()
    call = next(call for call in network.calls if call.name in network.axes)
    weight = network.constant(call.inputs[1]).detach().clone()
    step = network.weight_scales(call, weight).expand_as(weight)
    middle = (torch.floor(weight / step) + 0.5) * step
    other = torch.zeros_like(weight, dtype=torch.bool)
    other.view(-1)[0] = True  # This one swings, all others stay.
    seen = []
    for turn in range(8):
        moved = torch.where(other, middle + (0.2 if turn % 2 else -0.2) * step, weight)
        seen.append(network.integers(call, moved).detach().view(-1)[:2].tolist())
    swings = [first for first, _ in seen]
    assert swings[0] != swings[1]
    assert THRESHOLD < 1 - MEMORY**2  # Two swings back are enough.
    assert len(set(swings[-4:])) == 1
    assert len({second for _, second in seen}) == 1
    network.eval()
    with torch.no_grad():
        below, above = (network.integers(call, middle + side * step).view(-1)[0] for side in (-0.2, 0.2))
    assert below != above


def test_everything_gets_a_gradient(resnet, plan, draw):
    network = trainable(resnet.path, plan).train()
    (feeds,) = draw(resnet, batches=1)
    network(*[torch.from_numpy(array) for array in feeds.values()]).square().mean().backward()
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
