"""Learned rounding against rounding to the nearest, in ONNX Runtime."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.quantize import apply_plan
from edgekit.quantize.graph import constant, load
from edgekit.quantize.learning.rounding import learn_rounding
from edgekit.quantize.rewrites import rewrite_again
from edgekit.quantize.weights import mse_scales, output_axis

FEW = 7
"""Integers from -7 to 7: 4-bit weights, for which rounding matters."""


@pytest.fixture
def coarse(resnet, int8):
    """A plan with 4-bit weights."""
    plan = int8(resnet, bias_correction=False, equalization=False).plan
    model = load(resnet.path)
    rewrite_again(model, ())
    scales = {
        str(node.name): tuple(mse_scales(constant(node.inputs[1]), output_axis(node), FEW).tolist())
        for node in model.graph
        if node.op_type in ("Conv", "Gemm") and node.name in plan.nodes
    }
    return replace(plan, weight_limit=FEW, weight_scales=scales)


def weights_of(path):
    """Every int8 weight of a file, by the names of their nodes."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    found = {}
    for node in graph.node:
        source = makers.get(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
        if source is not None and source.op_type == "DequantizeLinear":
            found[node.name] = constants[source.input[0]].astype(int)
    return found


def noise(run, reference, path, batches):
    return sum(float(((run(path, feeds) - run(reference.path, feeds)) ** 2).sum()) for feeds in batches)


@pytest.mark.slow
def test_it_beats_the_nearest_on_samples_that_it_has_not_seen(resnet, coarse, draw, run, tmp_path):
    nearest, learned, source = tmp_path / "nearest.onnx", tmp_path / "learned.onnx", tmp_path / "source.onnx"
    apply_plan(resnet.path, coarse, nearest)
    plan = learn_rounding(resnet.path, coarse, draw(resnet, seed=0), source, steps=150)
    apply_plan(source, plan, learned)
    fresh = draw(resnet, seed=99)
    assert noise(run, resnet, learned, fresh) < 0.8 * noise(run, resnet, nearest, fresh)
    before, after = weights_of(nearest), weights_of(learned)
    assert set(before) == set(after)
    assert any((before[name] != after[name]).any() for name in before)
    # Up or down, and nowhere else: the weight itself lies between.
    exact = {str(node.name): node for node in _rewritten(resnet)}
    for name, integers in after.items():
        weight = constant(exact[name].inputs[1])
        shape = [-1, *[1] * (weight.ndim - 1)]
        real = np.clip(weight / np.array(plan.weight_scales[name]).reshape(shape), -FEW, FEW)
        assert (np.abs(integers - real) < 1 + 1e-4).all()
        assert np.abs(integers).max() <= FEW


def test_without_time_all_are_rounded_to_the_nearest(resnet, coarse, draw, tmp_path):
    nearest, learned, source = tmp_path / "nearest.onnx", tmp_path / "learned.onnx", tmp_path / "source.onnx"
    apply_plan(resnet.path, coarse, nearest)
    plan = learn_rounding(resnet.path, coarse, draw(resnet), source, time_s=0)
    apply_plan(source, plan, learned)
    before, after = weights_of(nearest), weights_of(learned)
    assert all((before[name] == after[name]).all() for name in before)


def test_the_same_call_learns_the_same(resnet, coarse, draw, tmp_path):
    for name in ("one", "other"):
        learn_rounding(resnet.path, coarse, draw(resnet, batches=1), tmp_path / name, steps=5)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def _rewritten(exported):
    model = load(exported.path)
    rewrite_again(model, ())
    return model.graph
